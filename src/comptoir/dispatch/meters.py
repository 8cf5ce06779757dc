"""Meters: a coordinator's counters since its start and its health, for health checks and metrics only."""

from collections.abc import Mapping

from comptoir.dispatch.core import Core, State
from comptoir.jobs import JobState
from comptoir.kit.errors import Unavailable
from comptoir.kit.vitals import HealthCheck, LoopLag, RequestCounts

CHECK_CAP_S = 0.5
"""Longest a health check waits; clients of GET /health (infernet-client) give up after one second."""


REFUSED_S = 5.0
"""How long a write that the disk refused keeps a coordinator unhealthy: longer than a monitor's polling interval."""


class Meters(State):
    """Counters of one coordinator; each counts from its start unless it says otherwise."""

    def __init__(self, core: Core) -> None:
        self._db = core.db
        self._nodes = core.nodes
        self.started_s = core.clock.monotonic_s()
        """Monotonic time of the start."""
        self.ended: dict[str, int] = {}
        """Jobs that ended, by final state."""
        self.ended_before: dict[str, int] = {}
        """Jobs that ended before this process started, or at other coordinators since, by final state."""
        self.latency_ms_sum = 0
        """Milliseconds from submit to end of completed jobs."""
        self.frames = 0
        """Frames received from hosts."""
        self.units: dict[str, int] = {}
        """Units that those frames stand for as their hosts say, at most one a byte (of kinds whose units come with
        results, at most what is believed), by the unit of their kind's output."""
        self.users = 0
        """Users in all, wherever and whenever they registered."""
        self.newcomers = 0
        """Users that registered here since the start."""
        self.served: list[RequestCounts] = []
        """Requests by endpoint, counted by each HTTP server on this core."""
        self.database = HealthCheck(self._ask_writer, fresh_s=core.settings.health_cache_s, cap_s=CHECK_CAP_S)
        """Whether the database takes writes, cached for ``health_cache_s``."""
        self.lag = LoopLag()
        """How late the event loop runs."""

    def begin(self, *, users: int) -> None:
        """Measure the event loop from now on; *users* is the number of users so far."""
        self.users = users
        self.lag.start()

    def close(self) -> None:
        """Stop measuring and checking."""
        self.lag.stop()
        self.database.close()

    def count_frames(self, frames: int, unit: str, count: int) -> None:
        """Count one batch of frames, which stand for *count* of *unit*."""
        self.frames += frames
        self.units[unit] = self.units.get(unit, 0) + count

    def count_end(self, state: str, latency_ms: int) -> None:
        """Count one ended job; *latency_ms* counts only if it was completed."""
        self.ended[state] = self.ended.get(state, 0) + 1
        if state == JobState.COMPLETED:
            self.latency_ms_sum += latency_ms

    def count_newcomer(self) -> None:
        """Count one user who just registered here."""
        self.users += 1
        self.newcomers += 1

    def count_elsewhere(self, ended: Mapping[str, int], *, users: int = 0) -> None:
        """Count jobs that ended and *users* that registered before this start or at other coordinators."""
        self.users += users
        for state, count in ended.items():
            self.ended_before[state] = self.ended_before.get(state, 0) + count

    async def _ask_writer(self) -> None:
        """Write something small. A full disk may still accept that, so a recently refused write counts as well."""
        await self._nodes.beat()
        if self._db.refused_within_s < REFUSED_S:
            raise Unavailable("the database refused a write a moment ago")
