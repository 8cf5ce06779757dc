"""A run that is interrupted or killed leaves nothing behind: no server, no browser, no trading post, no folder."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.tree import ROOT
from tests.leftovers import NAME
from tests.proofs.standing_still import SAYS

BOUND_S = 60.0
"""A bound against hanging; everything stands after some seconds, and is gone in less."""

PROGRAMS = ("bin/postgres", "redis-server", "comptoir", "chromium")
"""Each is in a command line of what a run has started; PostgreSQL twice, the run's own and a test's."""

Processes = dict[int, str]


def commands() -> dict[int, tuple[str, str]]:
    """Return each process that tests started: the folder of the test process, and the command."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue  # It ended meanwhile, or is none of ours.
        for line in environment:
            if line.startswith(f"{NAME}="):
                found[int(pid)] = line.partition("=")[2], command
    return found


def of(folder: str) -> Processes:
    """Return what the test processes below *folder* have started."""
    return {pid: command for pid, (below, command) in commands().items() if f"{below}/".startswith(f"{folder}/")}


def until_gone(folder: str) -> None:
    """Wait until nothing is left of the test process with *folder*, or of those below it."""
    deadline = time.monotonic() + BOUND_S
    while of(folder) or Path(folder).exists():
        assert time.monotonic() < deadline, of(folder)
        time.sleep(0.02)


class Run:
    """A run of two processes, one of which stands still in its only test."""

    def __init__(self, says: Path) -> None:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-n",
            "2",
            "tests/proofs/standing_still.py",
        ]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, SAYS: str(says)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + BOUND_S
        while not says.exists():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pid, self.folder, self.own_folder = says.read_text().split()
        self.pid = int(pid)

    def output(self) -> str:
        """Wait for its end; return what it printed."""
        return self.process.communicate(timeout=BOUND_S)[0]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    started = Run(tmp_path / "says")
    with started.process:
        running = of(started.folder).values()
        counts = {program: sum(program in command for command in running) for program in PROGRAMS}
        try:
            assert min(counts.values()) > 0 and counts["bin/postgres"] > 1, running
            yield started
        finally:
            started.process.kill()
            until_gone(started.folder)


@pytest.mark.proof
class TestEndedRuns:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_a_run_leaves_nothing(self, run: Run, how: signal.Signals) -> None:
        os.kill(run.process.pid, how)

        until_gone(run.folder)
        run.output()

    def test_ctrl_c_leaves_nothing(self, run: Run) -> None:
        """A terminal interrupts all processes of the run at once, the servers included."""
        os.killpg(run.process.pid, signal.SIGINT)

        until_gone(run.folder)
        run.output()

    def test_a_killed_process_of_a_run_leaves_nothing(self, run: Run) -> None:
        """What the run shares stands until its end."""
        os.kill(run.pid, signal.SIGKILL)

        until_gone(run.own_folder)
        assert "crashed" in run.output()
        until_gone(run.folder)
