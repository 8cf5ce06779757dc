"""Deferred settlements: what could not be written because the database is away is written as soon as it is back.

A job's frames need no database, so streams flow on; only an end has to wait. It is kept here, one a job, while readers stay
connected and the worker's channel stays open. In memory only: if the coordinator dies meanwhile the jobs are as they are
stored, and whoever takes them up ends them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from comptoir.dispatch.core import Core, State
from comptoir.events import DatabaseReturned
from comptoir.jobs import LiveJob
from comptoir.kit.errors import Unavailable

log = logging.getLogger(__name__)

PAUSE_S = 0.1
"""Pause before what was refused is tried again; the database says itself when it is back."""

TOGETHER_MAX = 256
"""Ends written side by side, so that they share commits."""

Again = Callable[[], Awaitable[object]]


class DeferredSettlements(State):
    """Ends that wait for the database, by job: never more than there are unfinished jobs."""

    def __init__(self, core: Core) -> None:
        self._db = core.db
        self._events = core.events
        self._kept: dict[bytes, Again] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._kept)

    def defer(self, job_id: bytes, again: Again) -> bool:
        """Have *again* called once the database is back, instead of what was kept for the job; False: it is stopping."""
        if self._closed:
            return False
        self._kept[job_id] = again
        self.watch_database()
        return True

    def is_deferred(self, job_id: bytes) -> bool:
        """Tell whether something of the job waits for the database."""
        return job_id in self._kept

    def watch_database(self) -> None:
        """Wait for the database in the background, also with nothing kept: `DatabaseReturned` is told then."""
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Keep nothing any more."""
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
            log.debug("an end has to wait for longer: %s", outage)  # It was kept anew.
        except Exception:  # The loop's edge: one job's end must not hold up all others.
            log.exception("an end that had waited for the database could not be written")
        finally:
            if self._kept.get(job_id) is again:
                del self._kept[job_id]


async def retry_when_db_returns(core: Core, job: LiveJob, verb: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run *verb* on *job*; if the database is away run it again when it is back, unless the job has gone on meanwhile.

    Raises:
        Unavailable: the database is out of reach; nothing has to be called again.
    """
    lease = job.lease
    try:
        await verb()
    except Unavailable:

        async def again() -> None:
            if job.lease is lease and not job.closing and not job.over:
                await retry_when_db_returns(core, job, verb)

        # An end that was decided on is kept by whoever did.
        if not job.closing:
            core.state(DeferredSettlements).defer(job.id, again)
        raise
