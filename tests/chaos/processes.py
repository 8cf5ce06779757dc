"""The processes of an episode that are ours: started, struck by their own id, started again; none outlives the
episode."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from comptoir.cli.cluster.child import ClusterProcess
from comptoir.cli.cluster.postgres import LocalPostgres
from tests.house.tree import ROOT

READY_S_MAX = 60.0
"""A bound against hanging, no measurement: machines that run tests are noisy."""

STOP_S_MAX = 30.0

LOOK_S = 0.02
AGAIN_S = 0.2


@dataclass(frozen=True)
class Code:
    """A source tree of ours, and the interpreter whose environment it runs in."""

    python: str
    root: Path


TODAY = Code(sys.executable, ROOT)


class Program(ClusterProcess):
    """One of our modules, run as a process: of `code`, which may be another at the next start."""

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        *,
        folder: Path,
        ready: Callable[[], Awaitable[bool]],
        supervised: bool = False,
    ) -> None:
        """Describe it.

        Args:
            supervised: one that ends before it is ready is started again, as an operator's supervisor does: its
                database may just be away.
        """
        super().__init__(name, folder / f"{name}.log")
        self.starts = 0
        self.code = TODAY
        self._arguments = ["-m", module, *arguments]
        self._ready = ready
        self._supervised = supervised

    async def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            Failure: it ended, or was not ready in `READY_S_MAX`.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S_MAX):
                while not await self._started():
                    if not self._supervised:
                        break
                    await asyncio.sleep(AGAIN_S)
                else:
                    return
        raise self.failure("did not start")

    async def _started(self) -> bool:
        self.starts += 1
        root = self.code.root
        env = {"PYTHONPATH": f"{root}/src:{root}", "PATH": os.environ.get("PATH", "")}
        await self._spawn([self.code.python, *self._arguments], env=env, cwd=root)
        while self.pid:
            if await self._ready():
                return True
            await asyncio.sleep(LOOK_S)
        return False

    async def stop(self) -> None:
        """Ask it to end in order, and wait."""
        await self._end((signal.SIGTERM, STOP_S_MAX))

    @property
    def status(self) -> int:
        """Exit status of the last process; negative: the signal that ended it."""
        code = self._process.returncode if self._process is not None else None
        return -signal.SIGCONT if code is None else code


def backends(server: LocalPostgres) -> list[int]:
    """Return the process ids of *server* that serve a client now."""
    found = []
    for pid in server._pids()[1:]:
        with contextlib.suppress(OSError):
            if b"[local]" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def limit_files(pid: int, size: str, *, user: str) -> None:
    """Let process *pid* of *user* (empty: ours) write no further into any file than *size* bytes; ``unlimited`` lifts
    it.

    A write beyond is refused by the kernel as one to a full disk is, with another number. No privilege is needed, but
    one has to be that user.
    """
    program = shutil.which("prlimit")
    if program is not None:
        command = [program, "--pid", str(pid), f"--fsize={size}:unlimited"]
        subprocess.run(command, check=False, capture_output=True, user=user or None, cwd="/")
