"""The processes of an episode: started, paused, killed, started again, each with its log in a file.

Each is alone in its process group, so that what it starts (PostgreSQL's backends) is struck with it, and nothing else is.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.house.tree import ROOT

READY_S_MAX = 60.0
"""A bound against hanging, no measurement: machines that run tests are noisy."""

STOP_S_MAX = 30.0


class Unready(Exception):
    """A process did not come up; its log says why."""


class Process:
    """One program that can be struck."""

    def __init__(
        self, name: str, command: list[str], *, log: Path, ready: Callable[[], Awaitable[bool]], user: str | None = None
    ) -> None:
        self.name = name
        self.log = log
        self.starts = 0
        self.paused = False
        self.expected_down = False
        """True from the moment that somebody strikes it until it is started again."""
        self._command = command
        self._ready = ready
        self._user = user
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process id; 0 while it is not running."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    async def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            Unready: it ended, or was not ready in `READY_S_MAX`.
        """
        await self.launch()
        await self.until_ready()

    async def launch(self) -> None:
        """Start it; somebody else waits for it."""
        assert not self.pid, f"{self.name} runs"
        self.starts += 1
        self.expected_down = self.paused = False
        with self.log.open("ab") as log:
            log.write(f"--- start {self.starts}\n".encode())
            log.flush()
            self._process = await asyncio.create_subprocess_exec(
                *self._command, cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={"PYTHONPATH": f"{ROOT}/src:{ROOT}", "PATH": os.environ.get("PATH", "")}, user=self._user,
            )  # fmt: skip

    async def until_ready(self) -> None:
        """Wait until it is ready.

        Raises:
            Unready: it ended, or was not ready in `READY_S_MAX`.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S_MAX):
                while self.pid:
                    if await self._ready():
                        return
                    await asyncio.sleep(0.02)
        raise Unready(f"{self.name} did not come up; see {self.log}")

    def signal(self, number: int) -> None:
        """Send a signal to it and what it started."""
        if self.pid:
            os.killpg(self.pid, number)

    async def kill(self) -> None:
        """End it with SIGKILL."""
        self.expected_down = True
        self.signal(signal.SIGKILL)
        await self.gone()

    async def terminate(self) -> int:
        """Ask it to end and wait; return its exit status. One that does not is killed."""
        self.expected_down = True
        if self.pid:
            assert self._process is not None
            self._process.send_signal(signal.SIGTERM)
        return await self.gone()

    async def gone(self) -> int:
        """Wait for its end; return its exit status."""
        assert self._process is not None
        try:
            return await asyncio.wait_for(self._process.wait(), STOP_S_MAX)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            return await self._process.wait()

    def pause(self) -> None:
        """Stop it where it stands."""
        self.paused = True
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.paused = False
        self.signal(signal.SIGCONT)


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs one of our modules."""
    return [sys.executable, "-m", module, *arguments]
