"""Readers: followers of a live job's frames, each at its own pace and from any frame on."""

import asyncio

from comptoir.jobs.live import LiveJob
from comptoir.link import Frame

BATCH_BYTES_MAX = 16 << 10
"""Most bytes of frames that are read at once, unless one alone is larger: what is made of them waits for its client,
who may never read."""

FRAME_BYTES = 200
"""What an event costs beside its frame's text, about."""


class Reader:
    """One follower of a job's frames, from *start* on."""

    __slots__ = ("_job", "_gone", "_restarts", "at", "batch_bytes", "_waiter", "outdated")

    def __init__(self, job: LiveJob, *, start: int = 0) -> None:
        self._job = job
        self.at = start
        """Number of the next frame to read."""
        self.batch_bytes = 0
        """Bytes of the last frame read, where it is larger than `BATCH_BYTES_MAX` and came alone; else 0."""
        self._gone = False
        self._restarts = job.restarts
        self.outdated = False
        """Set when the answer restarted before this reader's position: what it has read is void."""
        self._waiter: asyncio.Future[bool] | None = None

    @property
    def job(self) -> LiveJob:
        """The job being read."""
        return self._job

    async def next(self, *, timeout_s: float = 0.0) -> list[Frame] | None:
        """Return the frames since the last call, at most `BATCH_BYTES_MAX` at once, waiting for at least one.

        An empty list means that *timeout_s* (> 0) passed; ``None`` that the job is over and all was read, that `leave`
        was called, or that the reader is `outdated`.
        """
        job = self._job
        while True:
            if self._restarts != job.restarts:
                self._notice_restart()
            if self._gone:
                return None
            if self.at < len(job.frames):
                end = len(job.frames)
                if job.frame_bytes > BATCH_BYTES_MAX:
                    end = self._batch_end(end)
                fresh = job.frames[self.at : end]
                self.at = end
                return fresh
            if job.over:
                return None
            loop = asyncio.get_running_loop()
            waiter = self._waiter = loop.create_future()
            job._waiters.append(waiter)
            timer = loop.call_later(timeout_s, _give_up, waiter) if timeout_s > 0 else None
            gave_up = True
            try:
                gave_up = await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
                # A woken waiter is off the list already; one that gave up must not stay on it for the job's life.
                if gave_up and waiter in job._waiters:
                    job._waiters.remove(waiter)
            if gave_up and not self._gone and self.at >= len(job.frames) and not job.over:
                return []

    def _batch_end(self, end: int) -> int:
        """Return the number of the frame before which a batch ends, at most *end*."""
        frames, at = self._job.frames, self.at
        first = frames[at]
        size = len(first.text) + len(first.extra)
        self.batch_bytes = size if size > BATCH_BYTES_MAX else 0
        for number in range(at + 1, end):
            frame = frames[number]
            size += len(frame.text) + len(frame.extra) + FRAME_BYTES
            if size > BATCH_BYTES_MAX:
                return number
        return end

    def _notice_restart(self) -> None:
        job = self._job
        if any(number > self._restarts and at < self.at for number, at in job.restarted_at):
            self.outdated = self._gone = True
        self._restarts = job.restarts

    def leave(self) -> None:
        """Stop reading; a waiting `next` returns None."""
        self._gone = True
        if self._waiter is not None:
            _give_up(self._waiter)


def _give_up(waiter: "asyncio.Future[bool]") -> None:
    if not waiter.done():
        waiter.set_result(True)
