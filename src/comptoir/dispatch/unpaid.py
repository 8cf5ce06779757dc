"""Unpaid contents: what one buyer's jobs that cost nothing leave on the disk is bounded, and the oldest goes first.

A job that was cancelled, expired, failed or is free keeps its prompt and answer for ``retention_days`` like any other.
Nobody paid for that room, so a buyer could fill the disk with them: 60 MB a cancellation.
"""

import logging
from collections import deque

from comptoir.dispatch.buyers import SMALL_BYTES
from comptoir.dispatch.core import Core, State
from comptoir.jobs import LiveJob

log = logging.getLogger(__name__)

NOTED_MAX = 500_000
"""Jobs noted, about 150 bytes each; beyond it all are forgotten, and ``retention_days`` has to do."""

DROPPED_AT_ONCE_MAX = 100
"""Jobs whose contents one command deletes: each may have 50 MB."""


class UnpaidContents(State):
    """Large contents of jobs that ended here without a price, by buyer, since this coordinator started."""

    def __init__(self, core: Core) -> None:
        self._bytes_max = core.settings.unpaid_bytes_per_buyer_max
        self._of: dict[bytes, deque[tuple[bytes, int]]] = {}
        """Of each buyer the ids and bytes, oldest first."""
        self._bytes: dict[bytes, int] = {}
        self._noted = 0
        self._excess: deque[bytes] = deque()

    def note(self, job: LiveJob) -> None:
        """Count a job that ended and cost nothing; what is beyond the bound waits to be deleted."""
        size = len(job.body) + job.frame_bytes
        if size <= SMALL_BYTES:
            return
        if self._noted >= NOTED_MAX:
            self._of.clear()
            self._bytes.clear()
            self._noted = 0
        mine = self._of.setdefault(job.owner_id, deque())
        mine.append((job.id, size))
        self._noted += 1
        held = self._bytes.get(job.owner_id, 0) + size
        while held > self._bytes_max and len(mine) > 1:  # The newest can still be read.
            oldest, freed = mine.popleft()
            self._excess.append(oldest)
            self._noted -= 1
            held -= freed
        self._bytes[job.owner_id] = held

    def take_excess(self) -> list[bytes]:
        """Return the jobs whose contents are to be deleted next, each once."""
        return [self._excess.popleft() for _ in range(min(len(self._excess), DROPPED_AT_ONCE_MAX))]


async def drop_unpaid(core: Core) -> int:
    """Delete the oldest unpaid contents beyond ``unpaid_bytes_per_buyer_max``; return how many jobs had some.

    Bounded: the next call deletes the rest.
    """
    excess = core.state(UnpaidContents).take_excess()
    if not excess:
        return 0
    dropped = await core.jobs.forget_contents(excess)
    log.info("deleted the contents of %d jobs that nobody paid for", dropped)
    return dropped
