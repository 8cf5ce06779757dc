"""How much work a film is: what a buyer pays for beside its seconds.

The unit is the millisecond of *standard video*: 1920x1080 pixels, 30 frames a second, H.264 at preset medium. Work is
counted by the frame, because that is what an encoder does: a film of half the frames a second, or a quarter of the
pixels, is half, or a quarter, of the work. Sound is counted by its length.
"""

import msgspec

from comptoir.kinds.ffmpeg.formats import GIF, PRESETS

BASE_PIXELS = 1920 * 1080
BASE_FPS = 30

OPEN_PIXELS = BASE_PIXELS
OPEN_FPS = 60
"""What the hold covers, of an order that leaves size or frames a second to its input. Larger inputs are made as well,
as long as they are so much shorter than was agreed."""

WIDTH_MAX = 7680
"""Longest side of a frame."""
PIXELS_MAX = 7680 * 4320
"""Largest frame: 8K."""
FPS_MAX = 120
"""Most frames a second, as of the published service."""

WEIGHTS: dict[str, tuple[int, ...]] = {
    "h264": (25, 35, 45, 70, 85, 100, 165, 300, 450),
    "h265": (75, 100, 135, 145, 160, 190, 430, 900, 1500),
    "vp9": (50, 70, 80, 110, 290, 370, 520, 760, 1500),
    "av1": (50, 55, 65, 100, 130, 190, 235, 320, 600),
    GIF: (60,) * len(PRESETS),
}
"""Processor time of a frame by codec and preset, in hundredths of that of H.264 at medium. Measured on one core with
libx264, libx265, libvpx-vp9 and libsvtav1 at 640x360 (``bench/bench_ffmpeg.py --weights``), rounded; slower and
veryslow of H.265, veryslow of VP9 and AV1 are extrapolated."""

SOUND_PER_MILLE = 10
"""A second of sound, in thousandths of a second of standard video: an encoder makes a hundred of them in a second, and
standard video has about as much again for copying and mixing."""

UNITS_PER_BYTE = 256
"""Most units that a byte of output can stand for. The smallest frames that encoders write have some 20 bytes; the
dearest (8K, AV1 or H.265 at veryslow) is about 8,000 units, and never that small."""

SECONDS_FREE = 60
BYTES_PER_SECOND_MIN = 8
"""An input of *n* bytes is no film of more than `SECONDS_FREE` + *n* / this seconds. What says that it is, is refused
before it is worked on, so that a host's word about the length has a bound in what is known of the input."""


class Picture(msgspec.Struct, frozen=True):
    """The pictures of a film that was made, or is to be."""

    codec: str
    width: int
    height: int
    frames: int


def units_of(picture: Picture | None, *, preset: str, sound_ms: int) -> int:
    """Return the milliseconds of standard video that a film is worth, rounded up; at least one.

    Args:
        sound_ms: length of its sound; 0: it has none.
    """
    hundredths = 0
    if picture is not None:
        weight = WEIGHTS[picture.codec][PRESETS.index(preset)]
        hundredths = picture.frames * picture.width * picture.height * weight
    base = BASE_FPS * BASE_PIXELS * 100
    return max(1, -(-(hundredths * 1_000_000 + sound_ms * SOUND_PER_MILLE * base) // (base * 1_000)))


def seconds_believed(input_bytes: int) -> float:
    """Return the longest film that so many bytes can be."""
    return SECONDS_FREE + input_bytes / BYTES_PER_SECOND_MIN
