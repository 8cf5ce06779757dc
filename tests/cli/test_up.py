"""The newcomer's path: first start, second start, the way out, and what goes wrong on the way."""

import os
import select
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec
import pytest

from comptoir.cli.api import Api
from comptoir.cli.quickstart import Quickstart
from comptoir.cli.target import Target
from tests.cli.conftest import WITHIN_S, Invoke, Program, Up, clean_environment, worker_pid

Start = Callable[..., Any]


def ask(known: Quickstart, path: str, *, operator: bool = False) -> Any:
    return Api(Target(known.url, known.admin_key if operator else known.key, "")).get(path).json()


class TestFirstStart:
    """What the module's trading post was and said when it started for the first time."""

    def test_it_makes_people_money_and_keys(self, post: Up) -> None:
        known = post.quickstart

        buyer, operator = ask(known, "/house/me"), ask(known, "/house/me", operator=True)
        assert (buyer["name"], buyer["role"], buyer["account"]["free_uusd"]) == ("demo", "buyer", 1_000_000)
        assert (operator["name"], operator["role"]) == ("operator", "admin")
        assert stat.S_IMODE((post.data / "quickstart.env").stat().st_mode) == 0o600
        assert stat.S_IMODE(post.data.stat().st_mode) == 0o700

    def test_it_prints_where_it_listens_and_three_things_to_paste(self, post: Up) -> None:
        post.until("Ctrl-C drains")
        known = post.quickstart

        assert f"listening   {known.url}" in post.text
        assert f'comptoir run --data {post.data} "What is Comptoir?"' in post.text
        assert f"curl -N {known.url}/v1/chat/completions" in post.text
        assert f'OpenAI(base_url="{known.url}/v1", api_key=os.environ["COMPTOIR_KEY"])' in post.text
        assert f"set -a; . {post.data}/quickstart.env; set +a" in post.text
        assert known.key not in post.text and known.admin_key not in post.text, "a log is for others to read too"
        assert "\x1b" not in post.text, "no colours where no terminal is"

    def test_the_worker_is_the_operators(self, post: Up) -> None:
        (host,) = ask(post.quickstart, "/house/hosts?mine=true", operator=True)["hosts"]

        assert (host["status"], host["models"][0]["name"]) == ("active", "trivial")

    def test_keys_are_in_no_command_line(self, post: Up) -> None:
        """Whoever has an account on the machine can read command lines."""
        line = Path(f"/proc/{worker_pid(post)}/cmdline").read_bytes()

        assert b"--supervised" in line
        assert b"ck_" not in line

    def test_two_coordinators_never_share_a_folder(self, post: Up, tmp_path: Path, programs: Start) -> None:
        second = programs(Program, "up", "--port", "0", "--data", str(post.data), "--no-worker", cwd=tmp_path)

        second.until("a coordinator is already running with")
        assert second.process.wait(WITHIN_S) == 1


class TestNextStarts:
    def test_the_same_people_money_keys_and_host_after_ctrl_c_and_after_kill(
        self, tmp_path: Path, programs: Start
    ) -> None:
        first = programs(Up, tmp_path).ready()
        known, host = first.quickstart, ask(first.quickstart, "/house/hosts")["hosts"][0]["id"]
        pid = worker_pid(first)

        # A signal drains, and takes the worker along.
        assert first.stop(signal.SIGINT) == 0
        assert "draining: no answers are open" in first.text
        assert "nothing is lost" in first.text
        assert "Traceback" not in first.text
        assert not Path(f"/proc/{pid}").exists()

        # All is there again, at another port.
        second = programs(Up, tmp_path).ready()
        again = second.quickstart
        assert again.url != known.url
        assert again[1:] == known[1:]
        assert ask(again, "/house/me")["account"]["free_uusd"] == 1_000_000
        assert [one["id"] for one in ask(again, "/house/hosts")["hosts"]] == [host]
        assert "as you left it" in second.text

        # A worker whose coordinator was killed ends too.
        worker = os.pidfd_open(worker_pid(second))
        second.stop(signal.SIGKILL)
        with open(worker, "rb", buffering=0) as handle:
            # Readable once the process is gone.
            assert select.select([handle], [], [], WITHIN_S)[0]

        # And the books are in order.
        third = programs(
            Up, tmp_path, "--no-worker", "--set", "infernet_anonymous=off", "--set", "host_registration=bond"
        )
        third.until("ready in")
        assert ask(third.quickstart, "/house/audit", operator=True)["differences"] == []
        assert third.quickstart.key == known.key
        assert "\nkeyless" not in third.text, "an operator who lets nobody in without a key is told of nobody"
        assert "need a user's key and a bond of 1,000.00 credits to register  (host_registration)" in third.text

        # A lost quickstart file comes back with other keys.
        assert third.stop() == 0
        (third.data / "quickstart.env").unlink()
        fourth = programs(Up, tmp_path, "--no-worker")
        fourth.until("ready in")
        assert "to register" not in fourth.text, "an operator who asks hosts for nothing is told of nothing"
        assert fourth.quickstart.key not in ("", known.key)
        assert ask(fourth.quickstart, "/house/me")["account"]["balance_uusd"] == 1_000_000


class TestWorker:
    def test_one_that_is_killed_is_started_again(self, post: Up) -> None:
        before = worker_pid(post)

        os.kill(before, signal.SIGKILL)
        told = post.until("killed by signal 9; restarting in 0.5 s")
        post.until("● active", after=told.end())

        assert worker_pid(post) != before

    def test_one_that_crashes_by_a_bug_is_started_again_ever_later(self, tmp_path: Path, programs: Start) -> None:
        (tmp_path / "broken.py").write_text(
            "class Engine:\n    def __init__(self):\n        raise LookupError('a bug')\n"
        )
        up = programs(Up, tmp_path, engine="broken:Engine")

        told = up.until(r"the local worker crashed \(exit code 1\); restarting in 0.5 s")
        up.until(r"restarting in 1 s", after=told.end())
        assert up.stop() == 0

    def test_one_without_engine_says_how_to_add_one(self, tmp_path: Path, programs: Start) -> None:
        up = programs(Up, tmp_path, engine="no.such:Engine")

        up.until("the local worker gave up: .*no.such")
        with urlopen(up.quickstart.url + "/house/status") as answer:
            assert msgspec.json.decode(answer.read())["status"] == "open"

    def test_without_any_engine_it_starts_and_says_how_to_add_one(self, tmp_path: Path, programs: Start) -> None:
        up = programs(Bare, tmp_path)

        up.until("No model answers here yet")
        up.until("pip install xllamacpp")
        nothing = {"models": [], "others": [], "models_total": 0, "others_total": 0}
        assert ask(up.quickstart, "/house/models") == nothing
        assert up.stop() == 0


class Bare(Up):
    """A post on a machine without llama.cpp and without servers on the usual ports."""

    SITE = """\
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "xllamacpp" else found(name, package)
"""

    def __init__(self, folder: Path) -> None:
        (folder / "sitecustomize.py").write_text(self.SITE)
        self.data = folder / "data"
        env = clean_environment()
        env["PYTHONPATH"] = f"{folder}{os.pathsep}{env['PYTHONPATH']}"
        Program.__init__(self, "up", "--port", "0", "--data", str(self.data), cwd=folder, env=env)


class TestTroubles:
    def test_a_taken_port_is_named(self, invoke: Invoke, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            result = invoke("up", "--port", str(port), "--data", str(tmp_path / "d"), "--no-worker")

        assert result.exit_code == 1
        assert f"port {port} on 127.0.0.1 is taken" in result.output
        assert f"--port {port + 1}" in result.output
        assert not (tmp_path / "d" / "comptoir.db").exists(), "the database was not touched"

    def test_a_foreign_address_is_refused(self, invoke: Invoke, tmp_path: Path) -> None:
        result = invoke("up", "--host", "192.0.2.1", "--port", "0", "--data", str(tmp_path / "d"), "--no-worker")

        assert result.exit_code == 2
        assert "192.0.2.1 is not an address of this machine" in result.output

    def test_a_bad_price_stops_the_start(self, invoke: Invoke) -> None:
        result = invoke("up", "--price-out", "cheap")

        assert result.exit_code == 2
        assert "is no price" in result.output

    def test_an_unknown_setting_stops_the_start(self, invoke: Invoke) -> None:
        result = invoke("up", "--set", "colour=blue")

        assert result.exit_code == 2
        assert "colour: is no setting" in result.output

    def test_a_folder_that_can_not_be_made_is_named(self, invoke: Invoke, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")

        result = invoke("up", "--data", str(tmp_path / "file" / "d"), "--port", "0")

        assert result.exit_code == 1
        assert "can't be used" in result.output

    def test_a_driver_that_is_not_installed_is_named(
        self, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "psycopg", None)
        monkeypatch.delitem(sys.modules, "comptoir.kit.db.postgres", raising=False)

        result = invoke(
            "up", "--data", str(tmp_path / "d"), "--port", "0", "--database", "postgresql://nobody@/nothing"
        )

        assert result.exit_code == 1
        assert "PostgreSQL needs the package psycopg" in result.output
        assert "pip install 'comptoir[postgres]'" in result.output
