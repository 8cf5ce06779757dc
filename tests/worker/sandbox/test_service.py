"""The choice of walls: the best that holds, or none and a sentence that says what to do."""

import os
import tempfile
from pathlib import Path

import pytest

from comptoir.worker.sandbox import Sandbox, SandboxMissing
from comptoir.worker.sandbox.layers import NAMESPACES_TODO, advice
from comptoir.worker.sandbox.types import EndReason, SandboxLimits
from tests import leftovers
from tests.worker.sandbox.conftest import UID, Driver


def broken_bubblewrap() -> Path:
    """Return a folder with a bubblewrap that may not make namespaces, where every user can start it."""
    place = Path(tempfile.mkdtemp(dir=os.environ[leftovers.NAME]))
    place.chmod(0o755)
    program = place / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    program.chmod(0o755)
    return place


class TestChoice:
    async def test_the_first_that_holds_is_taken(self, tmp_path: Path) -> None:
        sandbox = Sandbox(tmp_path)
        await sandbox.open(every=True)

        assert [(each.name, each.ready) for each in sandbox.checks] == [("bubblewrap", True), ("landlock", True)]
        assert sandbox.layer.name == "bubblewrap" and sandbox.sandboxed
        await sandbox.close()

    async def test_without_bubblewrap_it_is_landlock(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        sandbox = Sandbox(tmp_path)
        await sandbox.open()

        assert sandbox.layer.name == "landlock"
        assert sandbox.checks[0].todo == "apt-get install bubblewrap"
        await sandbox.close()

    async def test_a_bubblewrap_that_does_not_work_is_passed_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is tried, not believed: a layer that is merely installed holds nothing."""
        monkeypatch.setenv("PATH", f"{broken_bubblewrap()}:{os.environ['PATH']}")
        sandbox = Sandbox(tmp_path)
        await sandbox.open()

        assert sandbox.layer.name == "landlock"
        assert "No permissions" in sandbox.checks[0].why and sandbox.checks[0].todo == NAMESPACES_TODO
        await sandbox.close()

    async def test_without_any_nothing_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        sandbox = Sandbox(tmp_path, layers=["bubblewrap"])

        with pytest.raises(SandboxMissing, match="bubblewrap is not installed") as refused:
            await sandbox.open()

        assert refused.value.todo == "apt-get install bubblewrap"
        assert os.listdir(tmp_path) == ["lock"]

    async def test_as_root_nothing_runs_unsandboxed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)

        with pytest.raises(SandboxMissing, match="nothing runs as root"):
            await Sandbox(tmp_path, unsandboxed=True).open()

    def test_what_namespaces_need_is_said(self) -> None:
        assert advice("unshare: Operation not permitted") == NAMESPACES_TODO
        assert "docs/sandbox.md" in advice("something else")


class TestRun:
    async def test_it_has_one_program_at_a_time(self, tmp_path: Path) -> None:
        """Where the worker is root, the folder is given to the user of the program that is started."""
        sandbox = Sandbox(tmp_path)
        await sandbox.open()
        run = sandbox.new_run()
        first = await run.start(["/bin/sleep", "60"], limits=SandboxLimits())

        with pytest.raises(ValueError, match="one program at a time"):
            await run.start(["/bin/true"], limits=SandboxLimits())

        assert (await first.stop()).reason is EndReason.STOPPED
        second = await run.start(["/bin/true"], limits=SandboxLimits())
        assert (await second.wait()).exit_code == 0
        await run.erase()
        await sandbox.close()

    async def test_a_sink_that_fails_ends_the_run_and_is_told(self, tmp_path: Path) -> None:
        """Nobody would read any more, and the program would wait for its wall."""
        sandbox = Sandbox(tmp_path)
        await sandbox.open()
        run = sandbox.new_run()

        async def fail(piece: bytes) -> None:
            raise KeyError(piece)

        process = await run.start(["/bin/sh", "-c", "echo x; sleep 60"], limits=SandboxLimits(), on_stdout=fail)
        with pytest.raises(KeyError):
            await process.wait()

        await run.erase()
        await sandbox.close()


class TestUnsandboxed:
    def test_limits_and_the_end_of_all_hold_without_walls(self) -> None:
        """Only on the owner's explicit word, and as an ordinary user."""
        worker = Driver(user="ordinary", layer="none", groups=False)
        left = worker.shell(
            "id -u; pwd; (setsid sleep 300.987654321 &) ; echo x > made; exit 4", limits=SandboxLimits(wall_s=30)
        )
        flood = worker.shell("yes", limits=SandboxLimits(wall_s=30, output_bytes=1000))
        away = worker.shell("true", network=True)
        worker.close()

        who, where = left.out.decode().split()
        assert int(who) == (UID if os.geteuid() == 0 else os.geteuid())
        assert where.endswith("/work") and left.results == {"made": b"x\n"}
        assert left.report is not None and left.report.exit_code == 4 and left.left == []
        assert flood.report is not None and flood.report.reason is EndReason.OUTPUT
        assert "can't be limited to public addresses" in away.failed
