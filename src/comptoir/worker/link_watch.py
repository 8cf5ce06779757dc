"""Tells a silent coordinator from a quiet one: pings when nothing comes, and says when the link is to be given up.

A coordinator that is stopped (SIGSTOP, a virtual machine that is moved, a path that drops everything) keeps its TCP
connections open and answers nothing. Time is counted in ticks of the worker's own event loop, and what came in the
meantime is read between two ticks: a loop that was held up itself for ten seconds has seen one tick, not ten seconds of
silence. Any message is a sign of life, so acknowledgements of a busy link save its pings.
"""

from collections.abc import Callable

TICK_S = 0.25
"""How often the watch looks."""

PING_AFTER_S = 1.0
"""A link that brought nothing for this long is pinged. A ping and its pong cost a coordinator about 40 us: 4 % of a core
for 1,000 idle hosts."""

LINK_SILENT_S = 3.0
"""A link that brings nothing for this long, a pong included, is given up and another coordinator is called. Shorter than
`NODE_SILENT_S` (4 s), after which the other coordinators take over a dead one's jobs: the host that brings a job's frames
should be back before. Longer than any pause of a healthy coordinator that was measured (a full garbage collection, a
long commit on a slow disk: below 1 s)."""

SLOW_FACTOR = 4
"""A coordinator whose pongs are slow is overloaded, not gone: it gets this many times its slowest pong."""

LINK_SILENT_MAX_S = 15.0
"""Longest patience with a slow one."""

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
        """Note that something came."""
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
