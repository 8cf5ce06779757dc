"""``comptoir up`` and ``comptoir recover`` on a database that was brought back without its last commits."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comptoir.cli.recover import say_repair
from tests.cli.conftest import Invoke, Up

Start = Callable[..., Any]


class TestRecover:
    def test_what_is_missing_is_shown_and_accepted(self, tmp_path: Path, invoke: Invoke, programs: Start) -> None:
        up = programs(Up, tmp_path, "--no-worker")
        up.until("ready in")
        data = ("--data", str(up.data))
        assert "nothing is missing" in invoke("recover", *data).output
        with sqlite3.connect(up.data / "comptoir.db") as live:
            live.execute("VACUUM INTO ?", (str(tmp_path / "backup.db"),))
        live.close()
        deposited = json.loads(invoke("deposit", "5", "--to", "demo", "--json", *data).output)
        assert up.stop() == 0
        shutil.copy(tmp_path / "backup.db", up.data / "comptoir.db")
        assert "commits" in invoke("audit", *data).output

        again = programs(Up, tmp_path, "--no-worker")
        again.until(
            "commits that were confirmed are missing from the database, no work is taken: comptoir recover --data"
        )
        shown = invoke("recover", *data)
        assert shown.exit_code == 1
        assert "1 confirmed receipts, transfers and jobs are missing" in shown.output
        assert f"deposit {deposited['transfer']}" in shown.output
        said = json.loads(invoke("recover", "--json", *data).output)
        assert (said["lost"], said["missing"], said["restart_first"]) == (True, 1, False)

        accepted = invoke("recover", "--accept-loss", "--reason", "a test", *data)

        assert accepted.exit_code == 0, accepted.output
        assert "epoch 1 has begun, work is taken" in accepted.output
        again.until("no commits are missing")
        assert invoke("deposit", "5", "--to", "demo", *data).exit_code == 0
        assert "nothing is missing" in invoke("recover", *data).output

    def test_bringing_back_and_accepting_are_two_steps(self, invoke: Invoke) -> None:
        refused = invoke("recover", "--bring-back", "--accept-loss", "--url", "http://127.0.0.1:1", "--key", "ck_x")

        assert refused.exit_code == 2 and "two steps" in refused.output

    def test_what_could_not_be_brought_back_is_named_with_why(self, capsys: pytest.CaptureFixture[str]) -> None:
        left = [{"receipt": "rcpt_1", "outcome": "uncovered", "why": "it lacks [5]", "missing_uusd": 5}]
        say_repair(
            {
                "receipts": 1_234, "transfers": 2, "refused": 3, "failed": "out of [reach]", "left": left, "more_left": 7,
                "known": 0, "running": False, "asking": 0, "waiting": 0,
            }
        )  # fmt: skip

        said = capsys.readouterr().out
        for words in (
            "1,234 receipts and 2 transfers",
            "3 receipts were not taken",
            "out of [reach]",
            "rcpt_1",
            "7 more",
        ):
            assert words in said
        assert "it lacks [5]" in said
