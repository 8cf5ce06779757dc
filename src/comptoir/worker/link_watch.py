"""Tells a dead coordinator from an idle one: pings when nothing comes, and decides when to give up the link.

A coordinator that is stopped (SIGSTOP, a virtual machine that is moved, a network that drops everything) keeps its TCP
connections open and answers nothing. Time is counted in ticks of the worker's own event loop, and messages are read
between two ticks: a loop that was itself blocked for ten seconds has seen one tick, not ten seconds of silence. Any
message is a sign of life, so a busy link needs no pings.
"""

from collections.abc import Callable

TICK_S = 0.25
"""Interval of the checks."""

PING_AFTER_S = 1.0
"""A link silent for this long is pinged. A ping and its pong cost a coordinator about 40 us: 4 % of a core for 1,000
idle hosts."""

LINK_SILENT_S = 3.0
"""A link silent for this long, without even a pong, is given up and another coordinator is called. Shorter than
`NODE_SILENT_S` (4 s), after which the other coordinators take over a dead one's jobs: the host with a job's frames
should have reconnected before. Longer than any measured pause of a healthy coordinator (a full garbage collection, a
long commit
on a slow disk: below 1 s)."""

SLOW_FACTOR = 4
"""A coordinator whose pongs are slow is overloaded, not dead: it gets this many times its slowest pong."""

LINK_SILENT_MAX_S = 15.0
"""Longest silence tolerated from a slow one."""

FORGET = 0.9
"""What is left of the slowest pong's weight after each further one."""


class LinkWatch:
    """The state of one connection. *clock* gives monotonic seconds (to time pongs only)."""

    __slots__ = ("_clock", "_heard", "_pinged_at_s", "_quiet_ticks", "slowest_pong_s")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heard = False
        self._quiet_ticks = 0
        self._pinged_at_s: float | None = None
        self.slowest_pong_s = 0.0

    @property
    def patience_s(self) -> float:
        """Return how long this link may be silent."""
        return min(LINK_SILENT_MAX_S, max(LINK_SILENT_S, SLOW_FACTOR * self.slowest_pong_s))

    def heard(self) -> None:
        """Note that a message came."""
        self._heard = True

    def ponged(self) -> None:
        """Note that a pong came, and how long it took."""
        self._heard = True
        if self._pinged_at_s is not None:
            took_s = self._clock() - self._pinged_at_s
            self.slowest_pong_s = max(took_s, FORGET * self.slowest_pong_s)
            self._pinged_at_s = None

    def tick(self) -> bool:
        """Count one tick; return whether to send a ping now."""
        if self._heard:
            self._heard = False
            self._quiet_ticks = 0
            return False
        self._quiet_ticks += 1
        if self._pinged_at_s is not None or self._quiet_ticks * TICK_S < PING_AFTER_S:
            return False
        self._pinged_at_s = self._clock()
        return True

    @property
    def silent(self) -> bool:
        """Whether the link is to be given up."""
        return self._quiet_ticks * TICK_S >= self.patience_s
