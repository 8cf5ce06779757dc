"""The native shape for push: the job as JSON, the answer as lines of frames, and a last line with the end."""

import aiohttp
import msgspec

from comptoir.link import Frame
from comptoir.transports.job_message import job_message
from comptoir.transports.native import (
    NATIVE,
    DoneLine,
    FailLine,
    FramesLine,
    NativeLine,
    decode_line,
    lease_name,
    spell,
)
from comptoir.transports.push.call import PushCall, PushFailed, lines_of

SSE, LINES = "text/event-stream", "application/x-ndjson"


class NativePush:
    """Reads ``application/x-ndjson``, and the same lines as data of an event stream."""

    name = NATIVE
    accept = f"{LINES}, {SSE}"

    def spell(self, call: PushCall) -> bytes:
        """Return the job, with everything that a linked worker gets."""
        return msgspec.json.encode(spell(job_message(call.job, call.lease, now_ms=call.core.common_ms())))

    async def read(self, response: aiohttp.ClientResponse, call: PushCall) -> None:
        """Read lines of frames, all of one network read at once, until one ends the job."""
        media = response.content_type
        if media not in (SSE, LINES):
            raise PushFailed(f"it answered with {media}, and {LINES} or {SSE} are understood")
        lease = lease_name(call.lease.id)
        async for lines in lines_of(response, rest_counts=media == LINES):
            frames: list[Frame] = []
            first = 0
            for line in lines:
                data = line.strip() if media == LINES else line[5:].strip() if line.startswith(b"data:") else b""
                if not data:
                    continue
                message = _message(data, lease)
                if isinstance(message, FramesLine):
                    if frames and message.seq != first + len(frames):
                        await call.give_looking(frames, seq=first)
                        frames = []
                    first = first if frames else message.seq
                    frames += message.frames()
                    continue
                if frames:
                    await call.give_looking(frames, seq=first)
                await _end(message, call)
                return
            await call.give_looking(frames, seq=first if frames else None)  # No frames at all is still a sign of life.
        raise PushFailed("it hung up before it said how it ended")


def _message(data: bytes, lease: str) -> NativeLine:
    try:
        message = decode_line(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise PushFailed(f"its answer is not understood: {error}") from error
    if message.lease != lease:
        raise PushFailed("it answered to another lease")
    return message


async def _end(message: DoneLine | FailLine, call: PushCall) -> None:
    if isinstance(message, FailLine):
        await call.fail_as_reported(message)
        return
    here = len(call.job.frames)
    if message.end_seq != here:
        raise PushFailed(f"it ended after frame {message.end_seq}, and {here} arrived")
    await call.complete(
        finish_reason=message.finish_reason,
        usage=message.counted(),
        signature=message.signature,
        running_hash=message.chain,
    )
