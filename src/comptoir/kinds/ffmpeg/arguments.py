"""``custom_args``: arguments of ffmpeg as its users know them, read into values of our own.

What is not on the list here is refused, and what is on it reaches a command line only as a number or a word of ours,
written anew (`comptoir.worker.engines.ffmpeg.command`); never as the buyer's text.
"""

import re
from collections.abc import Callable, Sequence

import msgspec

from comptoir.kinds.errors import BadOrderField

SECONDS_MAX = 86_400
"""Longest film, and latest beginning: a day."""
RATE_BPS_MAX = 400_000_000
"""Highest bitrate: that of 8K, hardly compressed."""

TUNES = {
    "h264": ("film", "animation", "grain", "stillimage", "fastdecode", "zerolatency"),
    "h265": ("animation", "grain", "fastdecode", "zerolatency"),
}
PIXELS = {
    "h264": ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le"),
    "h265": ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le"),
    "vp9": ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le"),
    "av1": ("yuv420p", "yuv420p10le"),
}
PROFILES = ("baseline", "main", "high")
LEVELS = ("3.0", "3.1", "3.2", "4.0", "4.1", "4.2", "5.0", "5.1", "5.2", "6.0", "6.1", "6.2")
SAMPLE_RATES = {
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "opus": (8000, 12000, 16000, 24000, 48000),
}
"""Those that a codec can have; of one that is not named, any of `SAMPLE_RATES_ANY`."""
SAMPLE_RATES_ANY = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)
CHANNELS_MAX = {"mp3": 2, "opus": 2}
"""Channels of codecs that have fewer than others, here."""
CHANNELS_ANY = 8


class CustomArgs(msgspec.Struct, frozen=True, kw_only=True):
    """What ``custom_args`` ask for, by the argument; None: the argument is not there."""

    start_s: float = 0.0
    """``-ss``"""
    length_s: float | None = None
    """``-t``"""
    silent: bool = False
    """``-an``"""
    keyframes: int | None = None
    """``-g``: most frames from one that stands alone to the next."""
    b_frames: int | None = None
    """``-bf``"""
    refs: int | None = None
    tune: str | None = None
    profile: str | None = None
    """``-profile:v``"""
    level: str | None = None
    pix_fmt: str | None = None
    rate_max_bps: int | None = None
    """``-maxrate``"""
    buffer_bits: int | None = None
    """``-bufsize``"""
    channels: int | None = None
    """``-ac``"""
    sample_rate: int | None = None
    """``-ar``, a second."""
    untitled: bool = False
    """``-map_metadata -1``: title, place and such are left out."""


_plain = re.compile(r"\d{1,6}(\.\d{1,6})?").fullmatch
_clock = re.compile(r"(\d{1,2}):([0-5]\d):([0-5]\d(?:\.\d{1,6})?)").fullmatch
_rate = re.compile(r"(\d{1,9})([kM]?)").fullmatch


def read_rate(text: str, field: str) -> int:
    """Return the bits a second that ``800k``, ``2M`` or ``900000`` stand for.

    Raises:
        BadOrderField: it stands for none, or for too many.
    """
    parts = _rate(text)
    bps = int(parts[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[parts[2]] if parts else 0
    if not 1_000 <= bps <= RATE_BPS_MAX:
        raise BadOrderField(
            field, f"is bits a second, from 1k to {RATE_BPS_MAX // 1_000_000}M, such as 800k, not {text!r}"
        )
    return bps


def _seconds(text: str, name: str) -> float:
    parts = _clock(text)
    seconds = float(text) if _plain(text) else -1.0
    if parts:
        seconds = 3600 * int(parts[1]) + 60 * int(parts[2]) + float(parts[3])
    if not 0 <= seconds <= SECONDS_MAX:
        raise BadOrderField("custom_args", f"{name} is seconds or HH:MM:SS, at most {SECONDS_MAX} s, not {text!r}")
    return seconds


def _length(text: str, name: str) -> float:
    seconds = _seconds(text, name)
    if seconds < 0.001:
        raise BadOrderField("custom_args", f"{name} is longer than nothing")
    return seconds


def _whole(least: int, most: int) -> Callable[[str, str], int]:
    def read(text: str, name: str) -> int:
        number = int(text) if re.fullmatch(r"[0-9]{1,6}", text) else -1
        if not least <= number <= most:
            raise BadOrderField("custom_args", f"{name} is a whole number from {least} to {most}, not {text!r}")
        return number

    return read


def _word(words: Sequence[str]) -> Callable[[str, str], str]:
    def read(text: str, name: str) -> str:
        if text not in words:
            raise BadOrderField("custom_args", f"{name} is one of {', '.join(words)}, not {text!r}")
        return text

    return read


def _bits(text: str, name: str) -> int:
    try:
        return read_rate(text, "custom_args")
    except BadOrderField as bad:
        raise BadOrderField("custom_args", f"{name} {bad.words}") from bad


_TUNES = tuple(dict.fromkeys(word for words in TUNES.values() for word in words))
_PIXELS = tuple(dict.fromkeys(word for words in PIXELS.values() for word in words))

WITH_VALUE: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "-ss": ("start_s", _seconds),
    "-t": ("length_s", _length),
    "-g": ("keyframes", _whole(1, 1000)),
    "-bf": ("b_frames", _whole(0, 16)),
    "-refs": ("refs", _whole(1, 16)),
    "-tune": ("tune", _word(_TUNES)),
    "-profile:v": ("profile", _word(PROFILES)),
    "-level": ("level", _word(LEVELS)),
    "-pix_fmt": ("pix_fmt", _word(_PIXELS)),
    "-maxrate": ("rate_max_bps", _bits),
    "-bufsize": ("buffer_bits", _bits),
    "-ac": ("channels", _whole(1, CHANNELS_ANY)),
    "-ar": ("sample_rate", _whole(SAMPLE_RATES_ANY[0], SAMPLE_RATES_ANY[-1])),
}
"""Arguments with a value: the field of `CustomArgs`, and what reads it."""

FIXED: dict[tuple[str, ...], tuple[str, bool] | None] = {
    ("-an",): ("silent", True),
    ("-map_metadata", "-1"): ("untitled", True),
    # What is done anyhow.
    ("-sn",): None,
    ("-dn",): None,
    ("-movflags", "+faststart"): None,
}
"""Arguments that are all one word, or always have the same value."""


def read_arguments(words: Sequence[str]) -> CustomArgs:
    """Read ``custom_args``, each argument and each value a word of its own, as on a command line.

    Raises:
        BadOrderField: one is not allowed, is there twice, or its value can't be.
    """
    values: dict[str, object] = {}
    value: object
    left = list(words)
    while left:
        name = left.pop(0)
        fixed = next((known for known in FIXED if known == (name, *left[: len(known) - 1])), None)
        if fixed is not None:
            del left[: len(fixed) - 1]
            field, value = FIXED[fixed] or ("", True)
        elif name in WITH_VALUE and left:
            field, read = WITH_VALUE[name]
            value = read(left.pop(0), name)
        elif name in WITH_VALUE:
            raise BadOrderField("custom_args", f"{name} needs a value")
        else:
            allowed = ", ".join([" ".join(known) for known in FIXED] + list(WITH_VALUE))
            raise BadOrderField("custom_args", f"{name[:40]!r} is not allowed; these are: {allowed}")
        if field in values:
            raise BadOrderField("custom_args", f"{name} is there twice")
        if field:
            values[field] = value
    return msgspec.convert(values, CustomArgs)
