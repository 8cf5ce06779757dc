"""What a host says that it made: the result of a job, and the rule that ties what it is paid to that."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from comptoir.kinds.ffmpeg.order import FilmOrder
from comptoir.kinds.ffmpeg.work import FPS_MAX, PIXELS_MAX, WIDTH_MAX, Picture, seconds_believed, units_of

LENGTH_OVER_MS = 1_000
"""How much longer a film may be than was asked: the last packet of sound, or the last frame, is whole."""

EndedBy = Literal["", "seconds", "units", "bytes"]
Whole = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Side = Annotated[int, Meta(ge=0, le=2 * WIDTH_MAX)]


class VideoStream(msgspec.Struct, frozen=True):
    """Pictures, as they were found in the file."""

    codec: Annotated[str, Meta(max_length=64)]
    """One of `formats.VIDEO_CODECS`, or another as ffmpeg calls it."""
    width: Side
    height: Side
    frames: Whole
    """Counted while they were made; of an input 0: nobody counted them."""
    fps: Annotated[float, Meta(ge=0)]
    """On average; 0: unknown."""


class AudioStream(msgspec.Struct, frozen=True):
    """Sound, as it was found in the file."""

    codec: Annotated[str, Meta(max_length=64)]
    channels: Whole
    sample_rate: Whole


class MadeFrom(msgspec.Struct, frozen=True):
    """What was found in the input."""

    format: Annotated[str, Meta(max_length=64)]
    duration_ms: Whole | None
    """None: it does not say."""
    size: Whole
    video: VideoStream | None
    """What was made into the output's."""
    audio: AudioStream | None


class MadeFilm(msgspec.Struct, frozen=True):
    """The result of a job."""

    output_format: str
    duration_ms: Whole
    size: Whole
    video: VideoStream | None
    audio: AudioStream | None
    padded: bool
    """Whether frames were put onto a larger one: of another shape than was asked for, or of odd sides."""
    ended_by: EndedBy
    """What was reached before the input's end; empty: nothing, it is all there. ``units``: what the order's hold
    covers. ``bytes``: what the host keeps of one film at most."""
    units: Whole
    """Milliseconds of standard video that it is worth (`work.units_of`)."""
    input: MadeFrom


def units_in(made: MadeFilm, order: FilmOrder) -> int:
    """Return what a film is worth by its own description."""
    video, sound_ms = made.video, made.duration_ms if made.audio is not None else 0
    picture = Picture(order.codec, video.width, video.height, video.frames) if video is not None else None
    return units_of(picture, preset=order.preset, sound_ms=sound_ms)


def wrong_film(made: MadeFilm, order: FilmOrder, *, size: int, input_bytes: int | None) -> str:
    """Return why *made* can't be the result of *order*; empty: it can.

    Args:
        size: bytes of the file that was delivered.
        input_bytes: of the input, where they are known.
    """
    video, most_ms = made.video, order.length_s * 1000 + LENGTH_OVER_MS
    if not 0 < made.size == size:
        return f"a file of {size} bytes is said to have {made.size}"
    if made.output_format != order.output_format:
        return f"it is {made.output_format}, and {order.output_format} was ordered"
    if not 0 < made.duration_ms <= most_ms:
        return f"it is {made.duration_ms} ms long, and {most_ms:.0f} are the most"
    if input_bytes is not None and made.duration_ms > seconds_believed(input_bytes) * 1000 + LENGTH_OVER_MS:
        return f"of {input_bytes} bytes no film of {made.duration_ms} ms can be made"
    if (video is not None) != bool(order.codec) or (made.audio is not None and not order.audio_codec):
        return "it has not the streams that were ordered"
    if video is not None:
        most_fps = order.fps or FPS_MAX
        if video.codec != order.codec or video.width * video.height > PIXELS_MAX or not video.frames:
            return f"its pictures are {video.codec}, {video.width}x{video.height}, {video.frames} frames"
        if order.size is not None and order.size != (video.width, video.height):
            return f"it has {video.width}x{video.height} pixels, and {order.size} were ordered"
        if video.frames > (made.duration_ms / 1000 + 1) * most_fps + 1:
            return f"it has {video.frames} frames in {made.duration_ms} ms"
    elif made.audio is None:
        return "it has no streams"
    return "" if made.units == units_in(made, order) else f"it is not worth {made.units} units"
