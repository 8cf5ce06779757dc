"""Streams: the id of the job in a write of its own, then the bytes of its last container as they come.

Infernet's client takes the first piece that it reads for the id. So the id is sent as soon as the job is durable, and
the rest only after the client has had time to read it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from comptoir.containers import ContainerRefused
from comptoir.dialects.infernet.buying import buy
from comptoir.dialects.infernet.callers import buyer_of
from comptoir.dialects.infernet.render import piece_of
from comptoir.dialects.infernet.translate import asked_of, job_uuid
from comptoir.dispatch import Core
from comptoir.dispatch.cancel import hang_up
from comptoir.gateway import Room, claim, follow, leave, open_stream, refollow, restarted_elsewhere, room_for
from comptoir.jobs import JobState, LiveJob, Reader
from comptoir.kit.errors import Refusal
from comptoir.kit.http import Request, Stream, StreamAborted
from comptoir.link import Frame

ID_ALONE_S = 0.05
"""How long only the id is sent; a client that reads more slowly may see both in one piece."""

MEDIA = "application/octet-stream"
"""What a container sends is its own affair, and no browser shall take it for a page (Ritual's node says text/html)."""

HEADERS = ((b"x-content-type-options", b"nosniff"),)


async def create_stream(core: Core, request: Request) -> Stream:
    """Buy a job and follow it on this connection; hanging up cancels it."""
    caller = await buyer_of(core, request)
    asked = asked_of(request.raw)
    if asked.is_delegated:
        raise ContainerRefused("Streaming only supported for OffchainJob requests.")
    bound = await claim(core, request, scope=caller.scope)
    job = await buy(core, asked, caller, stream=True, bound=bound)
    if bound is not None:
        job = await follow(core, job)  # A repeat may be of one that is over, or another coordinator's.
    try:
        close = open_stream(core, job.id)
    except Refusal:
        hang_up(core, job)
        raise

    def gone() -> None:
        hang_up(core, job)
        close()

    request.when_gone(gone)
    return Stream(_pieces(core, job, room=room_for(core, request), close=close), media=MEDIA, headers=HEADERS)


async def _pieces(core: Core, job: LiveJob, *, room: Room, close: Callable[[], None]) -> AsyncIterator[bytes]:
    """Yield the id, then what the last container sends.

    Raises:
        StreamAborted: the job failed; the connection is aborted, so that the client sees that the answer is incomplete.
    """
    loop = asyncio.get_running_loop()
    try:
        yield f"{job_uuid(job.id)}\n".encode()
        alone_until = loop.time() + ID_ALONE_S
        async for frames in _shown(core, job, room):
            piece = b"".join(map(piece_of, frames))
            if not piece:
                continue
            if (early_s := alone_until - loop.time()) > 0:
                await asyncio.sleep(early_s)
            yield piece
    finally:
        room.release()
        close()


async def _shown(core: Core, job: LiveJob, room: Room) -> AsyncIterator[list[Frame]]:
    """Yield the frames of the last container; earlier ones are its input, and not for the buyer.

    Raises:
        StreamAborted: as `_pieces`.
    """
    hidden = len(job.stages) - 1
    shown = False
    reader = Reader(job)
    while True:
        frames = await reader.next()
        if frames is None:
            if not shown and (reader.outdated or restarted_elsewhere(job)):
                # An earlier container was run again, here or elsewhere; the buyer has seen none of its output.
                job = await refollow(core, job)
                reader = Reader(job)
                continue
            break
        fresh = frames[max(0, hidden - (reader.at - len(frames))) :]
        shown = shown or bool(fresh)
        if fresh:
            if reader.batch_bytes:
                await room.hold_batch(reader.batch_bytes)
            yield fresh
            room.release()
    if reader.outdated or job.state is not JobState.COMPLETED:
        leave(core, job)
        raise StreamAborted(f"job {job_uuid(job.id)} is {job.state}: {job.error_code}")
