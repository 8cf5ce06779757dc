"""Cheap vital signs: a cached and bounded health check, what was served, how late the loop runs."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from comptoir.kit.errors import Refusal

log = logging.getLogger(__name__)

SAMPLE_S = 0.25
"""How often the loop's lateness is measured; a few microseconds each."""


class HealthFinding(msgspec.Struct, frozen=True):
    """What a check found, and when."""

    healthy: bool
    took_ms: float
    """How long the check took, or the cap when it did not come back."""
    words: str = ""
    """What is wrong; empty when nothing is."""


class HealthCheck:
    """Runs *probe* one at a time; whoever asks waits at most *cap_s*.

    What was found is used for *fresh_s* seconds. Whoever asks in the second half of them has it looked at anew, for
    those who ask later: a server that is asked all the time never has anybody wait for its database.
    """

    def __init__(self, probe: Callable[[], Awaitable[object]], *, fresh_s: float, cap_s: float) -> None:
        self._probe = probe
        self._fresh_s = fresh_s
        self._cap_s = cap_s
        self._found: HealthFinding | None = None
        self._at_s = 0.0
        self._task: asyncio.Task[HealthFinding] | None = None

    async def read(self) -> HealthFinding:
        """Return what was found at most *fresh_s* ago, looking anew if need be.

        A probe that hangs is not started twice: after its first *cap_s* everybody hears so at once, until it comes
        back.
        """
        found, task = self._found, self._task
        age_s = time.monotonic() - self._at_s
        fresh = found is not None and age_s < self._fresh_s
        if task is None and not (fresh and age_s < self._fresh_s / 2):
            task = self._task = asyncio.get_running_loop().create_task(self._run())
        elif found is not None and not found.healthy:
            return found
        if found is not None and fresh:
            return found
        assert task is not None
        done, _ = await asyncio.wait((task,), timeout=self._cap_s)
        if not done:
            self._keep(HealthFinding(False, self._cap_s * 1000, f"no answer within {self._cap_s:g} s"))
        assert self._found is not None
        return self._found

    async def _run(self) -> HealthFinding:
        began = time.perf_counter()
        try:
            await self._probe()
            found = HealthFinding(True, (time.perf_counter() - began) * 1000)
        except Exception as error:  # The check's edge: whatever is wrong is the answer, and must not end the asker.
            log.warning("a health check failed", exc_info=True)
            words = error.message if isinstance(error, Refusal) else type(error).__name__
            found = HealthFinding(False, (time.perf_counter() - began) * 1000, words)
        self._keep(found)
        self._task = None
        return found

    def _keep(self, found: HealthFinding) -> None:
        self._found = found
        self._at_s = time.monotonic()

    def close(self) -> None:
        """Stop a probe that still runs."""
        if self._task is not None:
            self._task.cancel()


@dataclass(slots=True, eq=False)
class RequestCounts:
    """Requests of one endpoint since the start; whoever serves it counts on."""

    dialect: str
    method: str
    path: str
    by_status: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0
    """Time spent on all of them together."""


class LoopLag:
    """How late callbacks of the event loop run: what every request pays before its first line of code."""

    def __init__(self) -> None:
        self.last_s = 0.0
        """Lateness of the last sample, seconds."""
        self.worst_s = 0.0
        """Largest lateness since the start, seconds."""
        self.sum_s = 0.0
        self.samples = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure on the running loop."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(SAMPLE_S, self._sample, loop, loop.time() + SAMPLE_S)

    def stop(self) -> None:
        """Stop measuring."""
        if self._timer is not None:
            self._timer.cancel()

    def _sample(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        # uvloop rounds timers to whole milliseconds and may fire a little early; early is not late.
        self.last_s = max(0.0, loop.time() - due_s)
        self.worst_s = max(self.worst_s, self.last_s)
        self.sum_s += self.last_s
        self.samples += 1
        self._timer = loop.call_later(SAMPLE_S, self._sample, loop, loop.time() + SAMPLE_S)
