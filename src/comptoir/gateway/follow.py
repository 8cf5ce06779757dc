"""Find a caller's job and follow it, whether it is running or long over: one way for every dialect."""

import asyncio
from weakref import WeakValueDictionary, finalize

from comptoir.dispatch import Core, State
from comptoir.dispatch.cancel import hang_up
from comptoir.gateway.traffic import Connections
from comptoir.jobs import (
    ANSWER_LOST,
    SMALL_ANSWER_BYTES,
    AnswerForgotten,
    AnswerLost,
    JobState,
    LiveJob,
    StoredAnswer,
    UnknownJob,
)
from comptoir.kit.errors import Unavailable
from comptoir.kit.http import AGAIN_AFTER_S, PIECE_BYTES
from comptoir.kit.ids import parse

SIZES_MAX = 10_000
"""Large answers whose size is remembered; beyond it all are forgotten, and learned again."""


class Recalled(State):
    """Answers read from the database for whoever reads them now: once for all readers of one job, and within their
    bytes."""

    def __init__(self, core: Core) -> None:
        self.jobs: WeakValueDictionary[bytes, LiveJob] = WeakValueDictionary()
        """Jobs that are over, with their frames, by id, for as long as somebody holds them."""
        self._reading: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        """Held while a job's answer is read, by the job's id."""
        self._large = asyncio.Lock()
        """Held while a large one is read."""
        self._budget = core.state(Connections).traffic.readers
        self._sizes: dict[bytes, int] = {}

    async def recall(self, core: Core, job: LiveJob) -> LiveJob:
        """Return *job*, which is over, with its answer: read for the first of its readers, shared by the others.

        Raises:
            Unavailable, AnswerForgotten: as `follow`.
        """
        lock = self._reading.setdefault(job.id, asyncio.Lock())
        async with lock:
            shared = self.jobs.get(job.id)
            if shared is not None:
                return shared
            self._check_room(job.id)
            stored = None if job.id in self._sizes else await core.jobs.small_answer(job.id)
            if stored is not None:
                await self._take(core, job, stored)
                return job
            async with self._large:
                self._check_room(job.id)
                await self._take(core, job, await core.jobs.large_answer(job.id))
        return job

    async def _take(self, core: Core, job: LiveJob, stored: StoredAnswer) -> None:
        if stored.frames:
            job.recall(stored)
            self._keep(job)
        elif job.error_code == ANSWER_LOST:
            raise AnswerLost
        elif (job.state is JobState.COMPLETED or job.usage.completion_tokens) and await core.jobs.is_forgotten(job.id):
            raise AnswerForgotten

    def _check_room(self, job_id: bytes) -> None:
        # What is known to find no room is not read.
        if self._budget.held + self._sizes.get(job_id, 0) > self._budget.bytes_max:
            raise Unavailable("too much waits to be read here; try again", retry_after_s=AGAIN_AFTER_S)

    def _keep(self, job: LiveJob) -> None:
        if job.frame_bytes > PIECE_BYTES:
            size = min(job.frame_bytes, self._budget.bytes_max // 2)
            if job.frame_bytes > SMALL_ANSWER_BYTES:
                if len(self._sizes) >= SIZES_MAX:
                    self._sizes.clear()
                self._sizes[job.id] = size
            if not self._budget.take("", size):
                raise Unavailable("too much waits to be read here; try again", retry_after_s=AGAIN_AFTER_S)
            finalize(job, self._budget.give, "", size)
        self.jobs[job.id] = job


async def find_job(core: Core, owner_id: bytes | None, text: str) -> LiveJob:
    """Return the job with the public id *text*, without frames if it is over; another owner's job is unknown.

    Raises:
        UnknownJob: no such job, malformed id, or somebody else's.
    """
    job_id = parse("job", text)
    if job_id is None:
        raise UnknownJob
    return await job_by_id(core, owner_id, job_id)


async def job_by_id(core: Core, owner_id: bytes | None, job_id: bytes) -> LiveJob:
    """Return the job; *owner_id* None: of any owner.

    Raises:
        UnknownJob: as `find_job`.
    """
    live = core.jobs.live.seen(job_id)
    if live is not None:
        if owner_id is not None and live.owner_id != owner_id:
            raise UnknownJob
        return live
    row = await core.jobs.get(job_id, owner_id=owner_id)
    return core.jobs.revived(row, now_s=core.clock.monotonic_s())


async def follow(core: Core, job: LiveJob) -> LiveJob:
    """Return *job* with all its frames, or a mirror that follows its owner, so that a `Reader` can start anywhere.

    Raises:
        Unavailable: no live coordinator owns it right now, or too many answers are being read; try again in a moment.
        AnswerForgotten: it has been over for so long that its answer was deleted; AnswerLost: the database lost it.
    """
    if not job.over and core.jobs.live.seen(job.id) is not job:
        return await core.peers.mirror(job)
    if job.over and not job.frames:
        return await core.state(Recalled).recall(core, job)
    return job


async def until_answered(core: Core, job: LiveJob) -> LiveJob:
    """Wait for the end of *job*, of which nothing was shown yet, and return it with all its frames.

    If the job is a mirror whose answer was restarted elsewhere, it is followed again from its start.

    Raises:
        Unavailable, AnswerForgotten: as `follow`.
    """
    await job.ended()
    while restarted_elsewhere(job):
        job = await refollow(core, job)
        await job.ended()
    return job


def restarted_elsewhere(job: LiveJob) -> bool:
    """Tell whether *job* is a mirror that ended only because the answer was restarted elsewhere."""
    return job.broken_off


async def refollow(core: Core, job: LiveJob) -> LiveJob:
    """Return a new mirror of a job whose mirror was broken off, to be read from its start.

    Raises:
        Unavailable, AnswerForgotten: as `follow`.
    """
    return await follow(core, await job_by_id(core, None, job.id))


def leave(core: Core, job: LiveJob) -> None:
    """Handle a client that was told that what it has seen is no longer part of the answer, and is gone.

    If nobody can request the answer again, the job is cancelled wherever it runs now, so that nobody pays for it.
    """
    if not job.detached and (restarted_elsewhere(job) or not job.over):
        core.background.spawn(_leave(core, job))


async def _leave(core: Core, job: LiveJob) -> None:
    hang_up(core, await refollow(core, job) if restarted_elsewhere(job) else job)
