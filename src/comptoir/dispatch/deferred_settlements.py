"""Deferred settlements: ends that could not be written because the database is unavailable, written once it is back.

Frames need no database, so streams keep flowing; only a job's end has to wait. It is kept here, one per job, while
readers and the worker's channel stay connected. In memory only: if the coordinator dies meanwhile, the jobs are as they
are stored, and whoever resumes them ends them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from comptoir.dispatch.core import Core, State
from comptoir.dispatch.duties import Duties, Duty
from comptoir.events import DatabaseReturned
from comptoir.jobs import LiveJob
from comptoir.kit.errors import Unavailable

log = logging.getLogger(__name__)

PAUSE_S = 0.1
"""Pause before a refused write is tried again; the database itself reports when it is back."""

TOGETHER_MAX = 256
"""Ends written concurrently, so that they share commits."""

Again = Callable[[], Awaitable[object]]


class DeferredSettlements(State):
    """Ends that wait for the database, by job; bounded by the number of unfinished jobs."""

    def __init__(self, core: Core) -> None:
        self._db = core.db
        self._events = core.events
        self._duties = core.state(Duties)
        self._kept: dict[bytes, Again] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._kept)

    def defer(self, job_id: bytes, again: Again) -> bool:
        """Call *again* when the database is back, replacing what was kept for the job; False: already shutting down."""
        if self._closed:
            return False
        self._kept[job_id] = again
        self.watch_database()
        return True

    def is_deferred(self, job_id: bytes) -> bool:
        """Tell whether an end of the job waits for the database."""
        return job_id in self._kept

    def watch_database(self) -> None:
        """Wait for the database in the background, even if nothing is deferred, and then publish `DatabaseReturned`."""
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Drop what is deferred and accept nothing more."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(PAUSE_S)
            await self._db.wait_available()
            kept = list(self._kept.items())
            if not kept:
                break
            log.info("writing %d ends that waited for the database", len(kept))
            for first in range(0, len(kept), TOGETHER_MAX):
                await asyncio.gather(*(self._write(*one) for one in kept[first : first + TOGETHER_MAX]))
        self._task = None
        self._events.publish(DatabaseReturned())

    async def _write(self, job_id: bytes, again: Again) -> None:
        try:
            await again()
        except Unavailable as outage:
            log.debug("an end has to wait longer: %s", outage)  # It was deferred again.
        except Exception:  # The loop's edge: one job's end must not block all others.
            log.exception("an end that had waited for the database could not be written")
            self._duties.failed(Duty.ENDS)
        finally:
            if self._kept.get(job_id) is again:
                del self._kept[job_id]


async def retry_when_db_returns(core: Core, job: LiveJob, verb: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run *verb* on *job*; if the database is unavailable, run it again later unless the job has moved on meanwhile.

    Raises:
        Unavailable: the database is unavailable; the caller need not call again.
    """
    lease = job.lease
    try:
        await verb()
    except Unavailable:

        async def again() -> None:
            if job.lease is lease and not job.closing and not job.over:
                await retry_when_db_returns(core, job, verb)

        # An end that was already decided on is deferred by whoever decided it.
        if not job.closing:
            core.state(DeferredSettlements).defer(job.id, again)
        raise
