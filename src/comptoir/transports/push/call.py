"""One call to a host's address: what a shape calls for what it reads, and how it reports errors."""

from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, Protocol

import aiohttp

from comptoir.dispatch import Core
from comptoir.dispatch.artifacts import FilesUnseen, look_while_away
from comptoir.dispatch.deferred_settlements import retry_when_db_returns
from comptoir.dispatch.errors import FramesOutOfOrder
from comptoir.dispatch.stream import FailureReport, complete, fail, fail_as_reported, take_frames
from comptoir.hosts import Host
from comptoir.jobs import Fault, Lease, LiveJob, NotYourLease
from comptoir.link import Frame, Usage

EVENT_BYTES_MAX = 1 << 20
"""Longest line of a host's stream; a token is a few bytes."""

ERROR_CHARS_MAX = 300
"""How much of a host's refusal is quoted to the buyer."""


class PushFailed(Exception):
    """A host's answer is not understood."""

    def __init__(self, message: str, *, status: int = 0, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class PushCall:
    """One job at one host, while the host has the lease."""

    def __init__(self, core: Core, host: Host, job: LiveJob, lease: Lease) -> None:
        self.core = core
        self.host = host
        self.job = job
        self.lease = lease

    def check_leased(self) -> None:
        """Check that the host still has the job.

        Raises:
            NotYourLease: the job was cancelled, or the lease revoked.
        """
        if self.job.lease is not self.lease or self.job.closing:
            raise NotYourLease

    def give(self, frames: list[Frame], *, seq: int | None = None) -> None:
        """Append frames; without *seq* the host does not number them, and they follow the last one.

        Raises:
            NotYourLease, AnswerTooLarge, BadFrame: nothing is appended. PushFailed: *seq* leaves a gap.
        """
        self.check_leased()
        try:
            take_frames(self.core, self.job, len(self.job.frames) if seq is None else seq, frames)
        except FramesOutOfOrder as gap:
            raise PushFailed(f"its frames leave a gap: {gap.message}") from gap

    async def give_looking(self, frames: list[Frame], *, seq: int | None = None) -> None:
        """The same for frames that may name files, which are looked for first."""
        try:
            self.give(frames, seq=seq)
        except FilesUnseen as unseen:
            await look_while_away(self.core, self.job, unseen)
            self.give(frames, seq=seq)

    async def complete(
        self, *, finish_reason: str, usage: Usage, signature: bytes = b"", running_hash: bytes = b""
    ) -> None:
        """End the job as answered; raises what `dispatch.stream.complete` raises, and NotYourLease."""
        self.check_leased()
        await complete(
            self.core,
            self.job,
            finish_reason=finish_reason,
            usage=usage,
            signature=signature,
            running_hash=running_hash,
        )

    async def fail(
        self, *, code: str, message: str, fault: Fault, status: int = 0, body: bytes = b"", retry_after_s: float = 0.0
    ) -> None:
        """End the attempt as failed; if the database is unavailable, it is written later, and Unavailable is raised."""
        failed = partial(
            fail,
            self.core,
            self.job,
            code=code,
            message=message,
            fault=fault,
            status=status,
            body=body,
            retry_after_s=retry_after_s,
        )
        await self._end_failed(failed)

    async def fail_as_reported(self, report: FailureReport) -> None:
        """The same, as the host reports it."""
        await self._end_failed(partial(fail_as_reported, self.core, self.job, report))

    async def _end_failed(self, failed: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self.job.lease is self.lease and not self.job.closing:
            await retry_when_db_returns(self.core, self.job, failed)


class Shape(Protocol):
    """How a job is written for a host, and how its answer is read."""

    name: str
    """The name in `hosts.HostRow.speaks`."""
    accept: str
    """Media types that it reads, for the ``accept`` header."""

    def spell(self, call: PushCall) -> bytes:
        """Return the JSON to post."""
        ...

    async def read(self, response: aiohttp.ClientResponse, call: PushCall) -> None:
        """Read an answer with status 200: frames and end.

        Raises:
            PushFailed: it is not understood, or it stopped before its end.
            NotYourLease, AnswerTooLarge, BadFrame, AnswerTooLong, BadSegment: by what it says.
        """
        ...


async def lines_of(response: aiohttp.ClientResponse, *, rest_counts: bool = False) -> AsyncIterator[list[bytes]]:
    """Yield the lines of an answer as they come, all of one network read together.

    Args:
        rest_counts: whether a last line without a line end counts.

    Raises:
        PushFailed: a line is longer than `EVENT_BYTES_MAX`.
    """
    rest = b""
    async for piece in response.content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > EVENT_BYTES_MAX:
            raise PushFailed(f"an event is longer than {EVENT_BYTES_MAX} bytes")
        yield lines
    if rest and rest_counts:
        yield [rest]
