"""One run from its start to its report: what it says, what it is told, how it ends, and that all of it is gone then."""

import os
import time
import uuid
from pathlib import Path

import pytest

from comptoir.worker.sandbox.types import MIB, Bound, EndReason, SandboxLimits
from tests.worker.sandbox.conftest import TIMEOUT_S, Driver, living
from tests.worker.sandbox.driver import Order

SHORT = SandboxLimits(wall_s=30)


def marker() -> str:
    """Return a number of seconds that no other process sleeps."""
    return f"300.{uuid.uuid4().int % 10**9:09}"


class TestEnd:
    @pytest.mark.parametrize(
        ("script", "code"),
        [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("exit 128", 128)],
    )
    def test_the_exit_code_is_told(self, script: str, code: int, driver: Driver) -> None:
        report = driver.shell(script).report

        assert report is not None and (report.reason, report.exit_code) == (EndReason.EXITED, code)

    def test_a_program_that_is_not_there_never_ran(self, driver: Driver) -> None:
        outcome = driver.run(Order(argv=["/work/nothing"]))

        assert outcome.failed or (outcome.report is not None and outcome.report.exit_code == 1 and outcome.err)

    @pytest.mark.parametrize(
        "script",
        [
            "(sleep {0} &); exit 0",
            "setsid sleep {0} & exit 0",
            "nohup setsid sh -c 'sleep {0} & sleep {0}' >/dev/null 2>&1 & exit 0",
        ],
        ids=["background", "setsid", "double fork"],
    )
    def test_what_is_left_behind_is_dead_before_the_end_is_told(self, script: str, driver: Driver) -> None:
        """And reading ends with the main process, though the child holds both outputs open."""
        unique = marker()
        outcome = driver.shell("echo before; " + script.format(unique), limits=SHORT)

        assert outcome.report is not None and outcome.report.exit_code == 0
        assert outcome.out == b"before\n" and outcome.report.wall_s < 20
        assert living(unique) == []

    def test_stopping_kills_all_of_it(self, driver: Driver) -> None:
        unique = marker()
        outcome = driver.shell(f"setsid sleep {unique} & echo ready; sleep {unique}", stop_at="ready", limits=SHORT)

        assert outcome.report is not None and outcome.report.reason is EndReason.STOPPED
        assert outcome.report.exit_code is None and outcome.out == b"ready\n"
        assert living(unique) == []

    def test_a_program_that_ignores_signals_is_killed(self, driver: Driver) -> None:
        outcome = driver.shell("trap '' TERM INT HUP; echo ready; while :; do sleep 1; done", stop_at="ready")

        assert outcome.report is not None and outcome.report.reason is EndReason.STOPPED

    def test_it_says_what_it_used(self, driver: Driver) -> None:
        outcome = driver.shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done", limits=SHORT)

        report = outcome.report
        assert report is not None and 0.01 < report.cpu_s <= report.wall_s + 0.05
        assert report.memory_bytes_peak > 200_000


class TestOutput:
    def test_both_outputs_and_the_channel_are_apart(self, driver: Driver) -> None:
        outcome = driver.shell("echo out; echo err >&2; echo result >&3", channel=True)

        assert (outcome.out, outcome.err, outcome.channel) == (b"out\n", b"err\n", b"result\n")

    def test_without_one_there_is_no_channel(self, driver: Driver) -> None:
        """What a program prints is never taken for a result: a result has a way of its own."""
        outcome = driver.shell("echo forged >&3 || echo none")

        assert outcome.out == b"none\n" and outcome.channel == b""

    def test_a_flood_is_cut_where_the_limit_is(self, driver: Driver) -> None:
        outcome = driver.shell("echo first; yes", limits=SandboxLimits(wall_s=30, output_bytes=100_000))

        assert outcome.report is not None and outcome.report.reason is EndReason.OUTPUT
        assert len(outcome.out) == outcome.report.output_bytes == 100_000
        assert outcome.out.startswith(b"first\ny\ny\n")

    def test_both_outputs_count_together(self, driver: Driver) -> None:
        limits = SandboxLimits(wall_s=30, output_bytes=100_000)
        outcome = driver.shell("yes >&2 & yes", limits=limits)

        assert outcome.report is not None and outcome.report.reason is EndReason.OUTPUT
        assert len(outcome.out) + len(outcome.err) == 100_000

    def test_a_flood_of_the_channel_is_cut(self, driver: Driver) -> None:
        limits = SandboxLimits(wall_s=30, channel_bytes=50_000)
        outcome = driver.shell("yes >&3", limits=limits, channel=True)

        assert outcome.report is not None and outcome.report.reason is EndReason.OUTPUT
        assert len(outcome.channel) == 50_000

    def test_what_was_written_before_a_kill_is_kept(self, driver: Driver) -> None:
        outcome = driver.shell("printf a; sleep 60", limits=SandboxLimits(wall_s=0.5))

        assert outcome.report is not None and outcome.report.reason is EndReason.WALL
        assert outcome.out == b"a"


class TestSeveral:
    def test_a_run_has_one_program_after_another(self, driver: Driver) -> None:
        """As of a film that is made, and then looked at: what the first one wrote is the second one's to read."""
        first = ["/bin/sh", "-c", "umask 077; echo made > /work/film"]
        outcome = driver.shell("cat /work/film; echo more >> /work/film", first=first)

        assert outcome.out == b"made\n", outcome


class TestInput:
    def test_it_is_read_to_its_end(self, driver: Driver) -> None:
        outcome = driver.shell("wc -c", stdin=b"x" * 300_000)

        assert int(outcome.out) == 300_000

    def test_a_program_that_reads_none_of_a_flood_ends_all_the_same(self, driver: Driver) -> None:
        outcome = driver.shell("exit 5", stdin=b"x" * (8 * MIB))

        assert outcome.report is not None and outcome.report.exit_code == 5

    def test_files_and_words_are_given(self, driver: Driver) -> None:
        """The environment is what was given and nothing else; a file that was put there belongs to the program."""
        outcome = driver.shell(
            'cat in.txt; echo more >> in.txt; echo "$WORD"', files={"in.txt": "text\n"}, env={"WORD": "given"}
        )

        assert outcome.out == b"text\ngiven\n"
        assert outcome.results == {"in.txt": b"text\nmore\n"}

    @pytest.mark.parametrize("target", ["relative", "/", "/../etc", "/a/../b"])
    def test_an_input_is_shown_at_a_plain_path_only(self, target: str, by_user: Driver) -> None:
        outcome = by_user.run(Order(argv=["/bin/true"], inputs=[Bound("/usr", target)]))

        assert "can't be shown" in outcome.failed


class TestResults:
    SCRIPT = (
        "echo good > good; ln -s /etc/passwd link; mkfifo pipe; echo a > a; ln a b; mkdir in; echo deep > in/file;"
        "ln -s / out; python3 -c '' 2>/dev/null; true"
    )

    def test_plain_files_alone_are_results(self, driver: Driver) -> None:
        """A link would be the host's file, a pipe would hang who reads it, a hard link may be another's file."""
        outcome = driver.shell(self.SCRIPT)

        assert outcome.results == {"good": b"good\n", "in/file": b"deep\n"}
        assert set(outcome.refused) == {"link", "pipe", "a", "b", "in", "out"}


class TestErase:
    HARD = (
        "mkdir -p a/b/c; echo x > a/b/c/f; chmod 000 a/b/c/f a/b/c a/b a; mkdir .x; echo > .x/.y; chmod 500 .x;"
        "ln -s / root; mkfifo pipe; i=0; while [ $i -lt 40 ]; do mkdir d; cd d; i=$((i+1)); done; echo > f"
    )

    def test_nothing_is_left_whatever_was_made_of_it(self, driver: Driver) -> None:
        outcome = driver.shell(self.HARD)

        assert outcome.report is not None and outcome.report.exit_code == 0, outcome.err
        assert outcome.left == []


class TestKilledWorker:
    def test_its_run_dies_with_it_and_the_next_clears_what_it_left(self, driver: Driver) -> None:
        unique = marker()
        worker = Driver(user=driver.user, layer=driver.layer, groups=driver.groups)
        worker.send(Order(argv=["/bin/sh", "-c", f"setsid sleep {unique} & echo x > /work/made; sleep {unique}"]))
        wait_for(lambda: len(living(f"sleep\0{unique}")) == 2, "the run")
        name = next(worker.folder.glob("worker_*")).name
        assert (groups_of(name) != []) == worker.groups

        worker.kill()
        wait_for(lambda: living(unique) == [], "the end of the run")
        assert list(worker.folder.rglob("made")) != []
        worker.start()

        assert list(worker.folder.rglob("made")) == []
        assert len(list(worker.folder.glob("worker_*"))) == 1
        worker.close()
        assert [each.name for each in worker.folder.iterdir()] == ["lock"]
        assert groups_of(name) == []


def groups_of(worker: str) -> list[Path]:
    """Return the control groups that a worker made and did not remove. Those of tests beside it come and go."""
    walk = os.walk("/sys/fs/cgroup")
    return [Path(here, name) for here, names, _ in walk for name in names if name.startswith(f"comptoir-{worker}-")]


def wait_for(seen: object, what: str) -> None:
    until = time.monotonic() + TIMEOUT_S
    while not seen():  # type: ignore[operator]
        assert time.monotonic() < until, f"{what} never came"
        time.sleep(0.01)
