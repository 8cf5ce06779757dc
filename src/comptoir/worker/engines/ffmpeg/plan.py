"""What is made of one input: its real streams, its size, and where it ends. Pure: from an order and what was probed."""

import msgspec

from comptoir.kinds.errors import BadOrderField
from comptoir.kinds.ffmpeg.formats import GIF, PRESETS
from comptoir.kinds.ffmpeg.order import SIDE_MIN, FilmOrder
from comptoir.kinds.ffmpeg.work import (
    FPS_MAX,
    PIXELS_MAX,
    SOUND_PER_MILLE,
    WIDTH_MAX,
    Picture,
    seconds_believed,
    units_of,
)
from comptoir.worker.engines.ffmpeg.media import Media, PictureStream, SoundStream

FPS_UNKNOWN = 30.0
"""Frames a second of an input that does not say how many it has, or says more than a film can have."""
FRAMES_MAX = 2**31 - 1
"""Most frames that ffmpeg can be told of."""
TOLERATED_S = 1.0
"""How much longer than agreed an input may say it is, before it is refused; it ends where it was agreed."""


class Plan(msgspec.Struct, frozen=True):
    """What is to be made."""

    picture: PictureStream | None
    sound: SoundStream | None
    width: int
    height: int
    """Of the output's frames; 0: it has none."""
    fps: float
    """Frames a second that are set; 0: those of the input, as they come."""
    channels: int
    """Of the output's sound."""
    length_s: float
    """Where it ends at the latest."""
    frames_max: int
    expected_s: float | None
    """How long it will be; None: not known."""
    padded: bool = False
    """Whether frames are put onto larger ones."""


def make_plan(order: FilmOrder, media: Media, *, input_bytes: int, units_max: int) -> Plan:
    """Decide what is made of *media*.

    Args:
        units_max: what may be paid; 0: nobody said.

    Raises:
        BadOrderField: this input can't be made into what was ordered; it names the field to change.
    """
    picture, sound = _streams(order, media)
    width, height = _size(order, picture) if picture else (0, 0)
    fps = order.fps or 0.0
    if picture and not fps and not 0 < picture.fps <= FPS_MAX:
        fps = FPS_UNKNOWN
    length_s, expected_s = order.length_s, None
    if media.duration_s is not None:
        expected_s = media.duration_s - order.arguments.start_s
        if expected_s <= 0:
            raise BadOrderField(
                "custom_args", f"-ss is behind the end of the input, which is {media.duration_s:g} s long"
            )
        if order.arguments.length_s is not None:
            expected_s = min(expected_s, order.arguments.length_s)
        if expected_s > order.seconds_max + TOLERATED_S:
            raise BadOrderField(
                "seconds_max", f"is {order.seconds_max}, and the input is {expected_s:.1f} s long; -t takes a part"
            )
    believed_s = seconds_believed(input_bytes)
    if expected_s is not None and expected_s > believed_s:
        raise BadOrderField("inputs", f"has {input_bytes} bytes and says it is {expected_s:.0f} s long")
    length_s = min(length_s, believed_s)
    frames_max = FRAMES_MAX
    if units_max:
        rate = fps or (picture.fps if picture else 0.0)
        frames_max = _frames_within(order, width * height, length_s if sound else 0.0, units_max)
        known_s = min(expected_s, length_s) if expected_s is not None else None
        if picture and frames_max < rate * (known_s or 0.0) - rate * TOLERATED_S:
            made = Picture(order.codec, width, height, int(rate * (known_s or 0.0)))
            units = units_of(made, preset=order.preset, sound_ms=int((known_s or 0.0) * 1000) if sound else 0)
            raise BadOrderField(
                "seconds_max", f"covers {units_max} units, and {width}x{height} at {rate:g} are {units}"
            )
    channels = sound.channels if sound else 0
    if sound and order.arguments.channels is not None:
        channels = order.arguments.channels
    elif sound and order.audio_codec in ("mp3", "opus"):
        channels = min(channels, 2)
    padded = picture is not None and _is_padded(order, picture, width, height)
    return Plan(picture, sound, width, height, fps, channels, length_s, frames_max, expected_s, padded)


def _streams(order: FilmOrder, media: Media) -> tuple[PictureStream | None, SoundStream | None]:
    """Return the streams that are made; sound goes with a film if there is some."""
    picture = media.picture if order.codec else None
    sound = media.sound if order.audio_codec else None
    if order.codec and picture is None:
        has = "sound" if media.sounds else "nothing that could be shown"
        cover = " and a cover" if media.covers else ""
        raise BadOrderField("output_format", f"{order.output_format} is a film, and the input has {has}{cover} alone")
    if not order.codec and sound is None:
        raise BadOrderField("output_format", f"{order.output_format} is sound, and the input has none")
    return picture, sound


def _size(order: FilmOrder, picture: PictureStream) -> tuple[int, int]:
    """Return the sides of the output's frames: as ordered, else the input's, made even where colours are halved."""
    if order.size is not None:
        return order.size
    width, height = (picture.height, picture.width) if picture.turned else (picture.width, picture.height)
    width, height = max(width, SIDE_MIN), max(height, SIDE_MIN)
    if order.codec != GIF and order.arguments.pix_fmt != "yuv444p":
        width, height = width + width % 2, height + height % 2
    if width > WIDTH_MAX or height > WIDTH_MAX or width * height > PIXELS_MAX:
        raise BadOrderField("resolution", f"is needed: the input has {width}x{height}, more than is made")
    return width, height


def _is_padded(order: FilmOrder, picture: PictureStream, width: int, height: int) -> bool:
    """Tell whether frames of the output are larger than what is shown on them."""
    across, down = (picture.height, picture.width) if picture.turned else (picture.width, picture.height)
    if order.size is None:
        return (across, down) != (width, height)
    # As ffmpeg fits one into the other; of pixels that are not square, the shape is not known here.
    return not picture.square or (round(across * height / down), round(down * width / across)) != (width, height)


def _frames_within(order: FilmOrder, pixels: int, sound_s: float, units_max: int) -> int:
    """Return how many frames of *pixels* may be made for *units_max*, beside the sound."""
    left = units_max - int(sound_s * SOUND_PER_MILLE) - 1
    if not pixels:
        return FRAMES_MAX
    many = 1_000_000
    each = units_of(Picture(order.codec, pixels, 1, many), preset=order.preset, sound_ms=0)
    return max(1, left * many // each)


def fitting_preset(preset: str, levels: tuple[int, ...]) -> int:
    """Return the level that an encoder with levels of its own has for *preset*."""
    return levels[PRESETS.index(preset)]
