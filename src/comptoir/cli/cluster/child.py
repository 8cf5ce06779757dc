"""A part of a local cluster: one child process that dies with us and can be killed, paused and resumed by its pid."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path

from comptoir.cli.failure import Failure

TETHER = str(Path(__file__).with_name("tether.py"))
LINE_BYTES_MAX = 1 << 20
LOG_TAIL_BYTES = 4096
LOOK_S = 0.03
"""Pause between two polls of something that can only be polled: a server starting to answer, a process ending."""


class ClusterProcess:
    """One server process of the cluster; a subclass says how it starts and how it ends in order.

    All processes end when this one ends, however it ends (``PR_SET_PDEATHSIG``, so Linux only). The kernel means the
    *thread* that started them: use parts from the thread that lives longest.
    """

    dies_by = signal.SIGKILL
    """What the kernel sends when we end."""
    user = ""
    """Whom it runs as; empty: as we do."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        """Where its standard error goes; begun anew by the first start."""
        self.stopping = False
        """It is meant to be down: whoever restarts what dies leaves it alone."""
        self._process: Process | None = None
        self._logged = False

    @property
    def pid(self) -> int:
        """Its process id; 0 when it is down."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    def down(self) -> bool:
        """Say whether no process of it runs."""
        return self.pid == 0

    async def start(self) -> None:
        """Start it and wait until it can be used; nothing happens when it runs.

        Raises:
            Failure: it can't start, with the last line of its log.
        """
        raise NotImplementedError

    async def stop(self) -> None:
        """Let it end in order, then make sure that it is gone; a paused one is resumed first."""
        raise NotImplementedError

    async def ended(self) -> int:
        """Wait until the process of now is gone; return its exit code (negative: the signal that ended it)."""
        assert self._process is not None, "only what was started can end"
        return await self._process.wait()

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL); a part that is supervised comes back by itself."""
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        """Stop it where it is (SIGSTOP): it keeps its connections and answers nobody."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT), as if no time had passed."""
        self._signal(signal.SIGCONT)

    def _pids(self) -> list[int]:
        """Return the ids that a signal goes to, in order."""
        return [self.pid] if self.pid else []

    def _signal(self, number: int) -> None:
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def _spawn(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        events: bool = False,
    ) -> Process:
        """Start *command*; with *events* its standard output is a pipe for us, else it goes to the log."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if self._logged else os.O_TRUNC)
        self._logged = True
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self.log, flags, 0o600)
        tether = (sys.executable, "-I", "-S", TETHER, str(os.getpid()), str(int(self.dies_by)), self.user)
        try:
            # A session of its own: Ctrl-C on the terminal is for us, who end the parts in order.
            self._process = await asyncio.create_subprocess_exec(
                *tether,
                *command,
                stdin=DEVNULL,
                stdout=PIPE if events else handle,
                stderr=handle,
                env=env,
                cwd=cwd,
                start_new_session=True,
                limit=LINE_BYTES_MAX,
            )
        finally:
            os.close(handle)
        return self._process

    async def _gone(self, within_s: float) -> bool:
        """Say whether it ends within *within_s*."""
        try:
            async with asyncio.timeout(within_s):
                await self.ended()
        except TimeoutError:
            return False
        return True

    async def _end(self, *ways: tuple[int, float]) -> None:
        """Send each (signal, seconds to wait) until it is gone; at last SIGKILL."""
        self.stopping = True
        if not self.pid:
            return
        self.resume()
        for number, within_s in ways:
            os.kill(self.pid, number)
            if await self._gone(within_s):
                return
        self.kill()
        await self.ended()

    def failure(self, what: str) -> Failure:
        """Return the error to raise: *what*, and the last line of the log."""
        last = self.last_words()
        return Failure(f"{self.name} {what}" + (f": {last}" if last else ""), f"its log is {self.log}")

    def last_words(self) -> str:
        """Return the last line of its log that is no detail of the one before."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.removeprefix("✗ ") for line in reversed(lines) if line[:1].strip()), "")


class Deadline:
    """Seconds that are left for something."""

    def __init__(self, within_s: float) -> None:
        self._at = time.monotonic() + within_s

    @property
    def over(self) -> bool:
        """Say whether none are left."""
        return time.monotonic() > self._at
