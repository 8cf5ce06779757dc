"""Follow a job over server-sent events, numbered so that clients can resume: one way for every dialect.

Events carry frame numbers; a reader that reconnects with ``Last-Event-ID`` gets what follows. If the answer has been
restarted since, which the numbers show, the stream ends with an event that says so. Disconnecting does not stop the
job.
"""

from collections.abc import AsyncIterator, Callable, Sequence

from comptoir.dispatch import Core
from comptoir.gateway.follow import find_job, follow
from comptoir.gateway.readers import Room, open_stream, room_for
from comptoir.jobs import LiveJob, Reader
from comptoir.kit.errors import InvalidField
from comptoir.kit.http import Request, Stream
from comptoir.kit.sse import PING, last_event_id
from comptoir.link import Frame

Render = Callable[[Sequence[Frame], int, int], bytes]
"""From frames, the number of the first, and how often the answer had been restarted: the events, as one write."""

End = Callable[[LiveJob, bool], bytes]
"""From the job, and whether the reader has seen frames that are no longer part of the answer: the last events."""


async def stream_job(
    core: Core, request: Request, job_id: str, *, owner_id: bytes | None, render: Render, end: End
) -> Stream:
    """Return the stream of a job from its first frame, or from the one after ``Last-Event-ID``, to its end.

    Args:
        job_id: the public id.
        owner_id: the owner that the job must have; None: any.

    Raises:
        InvalidField: ``Last-Event-ID`` is not one of ours.
        UnknownJob, Unavailable, AnswerForgotten: as `find_job` and `follow`.
        TooManyRequests, Unavailable: too many streams are open.
    """
    try:
        last = last_event_id(request.header(b"last-event-id"))
    except ValueError as error:
        raise InvalidField("Last-Event-ID", str(error)) from error
    job = await follow(core, await find_job(core, owner_id, job_id))
    close = open_stream(core, job.id)
    reader = Reader(job, start=0 if last is None else last[1] + 1)
    reader.outdated = last is not None and last[0] != job.restarts

    def gone() -> None:
        reader.leave()
        close()

    request.when_gone(gone)
    room = room_for(core, request)
    return Stream(_events(reader, ping_s=core.settings.sse_ping_s, room=room, close=close, render=render, end=end))


async def _events(
    reader: Reader, *, ping_s: float, room: Room, close: Callable[[], None], render: Render, end: End
) -> AsyncIterator[bytes]:
    job = reader.job
    try:
        while not reader.outdated and (fresh := await reader.next(timeout_s=ping_s)) is not None:
            if not fresh:
                yield PING
                continue
            if reader.batch_bytes:
                await room.hold_batch(reader.batch_bytes)
            yield render(fresh, reader.at - len(fresh), job.restarts)
            room.release()
        if reader.outdated or job.over:
            yield end(job, reader.outdated)
    finally:
        room.release()
        close()
