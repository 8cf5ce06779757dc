"""``comptoir up`` and ``comptoir recover`` on a database that was brought back without its last commits."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
