"""Streams: the id of the job in a write of its own, then the bytes of its last container as they come.

Infernet's client takes the first piece that it reads for the id. So the id is sent the moment the job is durable, and what
follows not before the client has had time to read it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from comptoir.containers import ContainerRefused
from comptoir.desk import began_anew, claim, follow, follow_anew, leave, open_stream
from comptoir.dialects.infernet.buying import buy
from comptoir.dialects.infernet.callers import buyer_of
from comptoir.dialects.infernet.render import piece_of
from comptoir.dialects.infernet.translate import asked_of, job_uuid
from comptoir.dispatch import House
from comptoir.dispatch.cancel import hang_up
from comptoir.jobs import JobState, LiveJob, Reader
from comptoir.kit.errors import Refusal
from comptoir.kit.http import Request, Stream, StreamAborted
from comptoir.link import Frame

ID_ALONE_S = 0.05
"""How long the id stands alone on the connection: a client that is slower to read than this may see both in one piece."""

MEDIA = "application/octet-stream"
"""What a container sends is its own affair, and no browser shall take it for a page (Ritual's node says text/html)."""

HEADERS = ((b"x-content-type-options", b"nosniff"),)


async def create_stream(house: House, request: Request) -> Stream:
    """Buy a job and follow it on this connection; hanging up cancels it."""
    caller = await buyer_of(house, request)
    asked = asked_of(request.raw)
    if asked.is_delegated:
        raise ContainerRefused("Streaming only supported for OffchainJob requests.")
    bound = await claim(house, request, scope=caller.scope)
    job = await buy(house, asked, caller, stream=True, bound=bound)
    if bound is not None:
        job = await follow(house, job)  # A repeat may be of one that is over, or another coordinator's.
    try:
        close = open_stream(house, job.id)
    except Refusal:
        hang_up(house, job)
        raise

    def gone() -> None:
        hang_up(house, job)
        close()

    request.when_gone(gone)
    return Stream(_pieces(house, job, close=close), media=MEDIA, headers=HEADERS)


async def _pieces(house: House, job: LiveJob, *, close: Callable[[], None]) -> AsyncIterator[bytes]:
    """Yield the id, then what the last container sends.

    Raises:
        StreamAborted: the job did not end well; the connection is cut, so that nobody takes what came for the whole.
    """
    loop = asyncio.get_running_loop()
    try:
        yield f"{job_uuid(job.id)}\n".encode()
        alone_until = loop.time() + ID_ALONE_S
        async for frames in _shown(house, job):
            piece = b"".join(map(piece_of, frames))
            if not piece:
                continue
            if (early_s := alone_until - loop.time()) > 0:
                await asyncio.sleep(early_s)
            yield piece
    finally:
        close()


async def _shown(house: House, job: LiveJob) -> AsyncIterator[list[Frame]]:
    """Yield the frames of the last container; those of the containers before it are its input, and not for the buyer's eye.

    Raises:
        StreamAborted: as `_pieces`.
    """
    hidden = len(job.stages) - 1
    shown = False
    reader = Reader(job)
    while True:
        frames = await reader.next()
        if frames is None:
            if not shown and (reader.misled or began_anew(job)):
                # A container before the last was run again, here or elsewhere; nobody has seen any of it.
                job = await follow_anew(house, job)
                reader = Reader(job)
                continue
            break
        fresh = frames[max(0, hidden - (reader.at - len(frames))) :]
        shown = shown or bool(fresh)
        if fresh:
            yield fresh
    if reader.misled or job.state is not JobState.COMPLETED:
        leave(house, job)
        raise StreamAborted(f"job {job_uuid(job.id)} is {job.state}: {job.error_code}")
