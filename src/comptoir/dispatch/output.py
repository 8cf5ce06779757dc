"""Output: what a container of a chain may deliver. A host is not believed: what others are given has to be whole."""

import msgspec

from comptoir.jobs import LiveJob
from comptoir.link import Usage

STOP = "stop"
"""The one finish reason of a container."""

NOTHING_MORE = Usage()

_is_json = msgspec.json.Decoder(msgspec.Raw).decode


def wrong_output(job: LiveJob, *, finish_reason: str = STOP, usage: Usage = NOTHING_MORE) -> str:
    """Say what of what the open lease delivered is no output of its container; empty: nothing.

    A step is one frame of JSON and one run (`comptoir.link.ContainerRun`); the last container of a stream may send what it likes,
    and is still one run.
    """
    if finish_reason != STOP or usage.prompt_tokens or usage.details:
        return f"a container ends with {STOP!r} and counts nothing but its run, not {finish_reason!r} and {usage}"
    if job.segment_tokens != 1:
        return f"a container is one run, not {job.segment_tokens}"
    if job.makes_pieces:
        return ""
    frames = job.frames[job.segment_start :]
    if len(frames) != 1:
        return f"a container's output is one frame, not {len(frames)}"
    try:
        _is_json(frames[0].text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        return f"a container's output is JSON: {error}"
    return ""
