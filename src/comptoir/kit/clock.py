"""Time behind one small seam, so that tests never wait on the real one."""

import time


class Clock:
    """The system's clocks. Wall time is milliseconds since 1970 UTC; monotonic time is seconds."""

    def now_ms(self) -> int:
        """Return wall-clock time in milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    monotonic_s = staticmethod(time.monotonic)
    """Return a clock in seconds that never goes back; only differences mean anything. Asked some fifteen times in a
    job's life, so it is the library's own function."""


class FakeClock(Clock):
    """A clock that moves only when a test tells it to."""

    def __init__(self, *, now_ms: int = 1_750_000_000_000) -> None:
        self._now_ms = now_ms
        self._monotonic_s = 1_000.0

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, *, seconds: float) -> None:
        """Move both clocks forward by *seconds* (>= 0)."""
        assert seconds >= 0
        self._now_ms += round(seconds * 1000)
        self._monotonic_s += seconds


def iso_utc(at_ms: int) -> str:
    """Render *at_ms* as ``2025-06-01T12:00:00Z`` (whole seconds, UTC), the form of the published APIs."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_ms // 1000))
