"""Bounds on open event streams, in all and per job."""

from collections.abc import Callable
from functools import partial

from comptoir.dispatch import Core, State
from comptoir.gateway.traffic import Connections
from comptoir.jobs import LiveJob
from comptoir.kit.errors import TooManyRequests, Unavailable
from comptoir.kit.http import PIECE_BYTES, ByteBudget, Request, StreamAborted
from comptoir.kit.ratelimit import address_key

RENDERED = 2
"""What is made of a frame is counted as so many times its bytes: text is escaped, or base64."""

AGAIN_AFTER_S = 1.0
"""Retry-After for a reader that was refused."""


class OpenStreams(State):
    """Open event streams."""

    def __init__(self, core: Core) -> None:
        self.of_job: dict[bytes, int] = {}
        """Open streams per job."""
        self.count = 0
        """Open streams in all."""


def open_stream(core: Core, job_id: bytes) -> Callable[[], None]:
    """Count one more reader of a job; returns the function that ends the counting (calling it again does nothing).

    Raises:
        TooManyRequests: the job has ``subscribers_per_job_max`` readers.
        Unavailable: ``streams_max`` streams are open.
    """
    settings, streams = core.settings, core.state(OpenStreams)
    readers = streams.of_job
    of_job = readers.get(job_id, 0)
    if of_job >= settings.subscribers_per_job_max:
        raise TooManyRequests(f"{of_job} read this job's stream already", retry_after_s=AGAIN_AFTER_S)
    if streams.count >= settings.streams_max:
        raise Unavailable("too many streams are open; try again in a moment", retry_after_s=AGAIN_AFTER_S)
    readers[job_id] = of_job + 1
    streams.count += 1
    is_open = True

    def close() -> None:
        nonlocal is_open
        if is_open:
            is_open = False
            streams.count -= 1
            left = readers[job_id] - 1
            if left:
                readers[job_id] = left
            else:
                del readers[job_id]

    return close


class Room:
    """Room for what one reader has made at once, beyond the little that each may (`PIECE_BYTES`): held until it was
    sent."""

    __slots__ = ("_budget", "_held", "_key", "_wait_s")

    def __init__(self, budget: ByteBudget, *, key: str, wait_s: float) -> None:
        self._budget = budget
        self._key = key
        self._wait_s = wait_s
        self._held = 0

    async def hold(self, size: int) -> None:
        """Wait for room for what is made of *size* bytes; what was held before is given back.

        Raises:
            Unavailable: there was none for ``reader_stall_s``, after which a reader that takes nothing is cut.
        """
        self.release()
        if size > PIECE_BYTES:
            self._held = await self._budget.reserve(self._key, size * RENDERED, timeout_s=self._wait_s)

    async def hold_batch(self, size: int) -> None:
        """Do so in the middle of a stream.

        Raises:
            StreamAborted: there was no room; the client may read on from there.
        """
        try:
            await self.hold(size)
        except Unavailable as full:
            raise StreamAborted(full.message) from full

    def release(self) -> None:
        """It was sent, or nobody is there any more; calling it again does nothing."""
        if self._held:
            self._budget.give(self._key, self._held)
            self._held = 0


def room_for(core: Core, request: Request) -> Room:
    """Return the room of the reader that *request* is, empty so far."""
    budget = core.state(Connections).traffic.readers
    return Room(budget, key=address_key(request.address), wait_s=core.settings.reader_stall_s)


async def room_for_answer(core: Core, request: Request, job: LiveJob) -> Callable[[], None] | None:
    """Wait for room for the whole answer of *job*; return what gives it back (`Reply.release`), None where it needs
    none.

    It is given back when *request* is answered, whatever happens to it.

    Raises:
        Unavailable: as `Room.hold`.
    """
    if job.frame_bytes <= PIECE_BYTES:
        return None
    room = room_for(core, request)
    request.holds(room.release)
    await room.hold(job.frame_bytes)
    await _turn(core, request, job)
    return room.release


async def _turn(core: Core, request: Request, job: LiveJob) -> None:
    """Wait for a turn of the event loop in which the whole answer of *job* may be made: 28 MB take 60 ms."""
    turn = core.state(Connections).traffic.turns.spend(address_key(request.address), job.frame_bytes * RENDERED)
    if turn is not None:
        await turn


async def take_room(core: Core, request: Request, job: LiveJob) -> None:
    """Take room for the whole answer of *job* until *request* is answered, without waiting for others to read theirs:
    it can be asked for again.

    Raises:
        Unavailable: there is none now.
    """
    if job.frame_bytes > PIECE_BYTES:
        budget, key = core.state(Connections).traffic.readers, address_key(request.address)
        size = min(job.frame_bytes * RENDERED, budget.bytes_per_key_max)
        if not budget.take(key, size):
            raise Unavailable("too much waits to be read here; try again", retry_after_s=AGAIN_AFTER_S)
        request.holds(partial(budget.give, key, size))
        await _turn(core, request, job)
