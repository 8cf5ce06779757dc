"""What is in a file: read from ffprobe's JSON where there is one, else from the report that ffmpeg prints of an input.

Everything in either is the buyer's text by way of ffmpeg: it is read into numbers and short words, and what can't be is
left out.
"""

import re
from typing import Any

import msgspec

DEMUXERS: tuple[str, ...] = (
    *("mov", "matroska", "webm", "avi", "flv", "mpegts", "mpeg", "ogg", "asf", "gif", "apng", "mxf"),
    *("wav", "w64", "mp3", "flac", "aac", "ac3", "eac3", "aiff", "caf", "amr", "au", "wv"),
    *("m4v", "h264", "hevc", "ivf"),
)
"""Formats of input, by ffmpeg's names. Each reads the one file that it is given; those that name further files or
addresses (hls, dash, concat, sdp, image sequences, ffmetadata) are not among them."""

INPUT_PROTOCOLS = "file"

STREAMS_MAX = 256
"""Most streams that are looked at."""
WORD_CHARS_MAX = 64
"""Longest name of a format or codec."""
SIDE_MAX = 65_536
"""Longest side of a frame that is taken for one."""
FPS_SEEN_MAX = 1_000.0
"""Most frames a second that are taken for such; what is more counts time by the tick."""

NAMES = {"hevc": "h265", "pcm_s16le": "pcm"}
"""Our names of codecs that ffmpeg calls otherwise."""


class PictureStream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of pictures that is a film, and no cover."""

    index: int
    codec: str
    width: int
    height: int
    """As stored, before a rotation."""
    turned: bool = False
    """Whether a rotation exchanges the sides."""
    square: bool = True
    """Whether its pixels are."""
    fps: float = 0.0
    """On average; 0: not known."""
    default: bool = False


class SoundStream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of sound."""

    index: int
    codec: str
    channels: int
    sample_rate: int
    default: bool = False


class Media(msgspec.Struct, frozen=True):
    """A file that ffmpeg can read."""

    format: str
    duration_s: float | None
    """None: it does not say."""
    pictures: tuple[PictureStream, ...]
    sounds: tuple[SoundStream, ...]
    covers: int = 0
    """Pictures that only go with it."""

    @property
    def picture(self) -> PictureStream | None:
        """The film in it: the one marked as the default, else the largest."""
        return max(self.pictures, key=lambda each: (each.default, each.width * each.height), default=None)

    @property
    def sound(self) -> SoundStream | None:
        """The sound in it: the one marked as the default, else the one of most channels."""
        return max(self.sounds, key=lambda each: (each.default, each.channels), default=None)


# -- ffprobe -----------------------------------------------------------------------------------------------------

PROBE_WORDS = ("-v", "error", "-of", "json", "-show_format", "-show_streams")


def read_probe(text: bytes) -> Media | None:
    """Read what ``ffprobe -of json -show_format -show_streams`` says; None: nothing that could be used."""
    try:
        said = msgspec.json.decode(text, type=dict[str, Any], strict=False)
        form, streams = dict(said.get("format") or {}), list(said.get("streams") or [])[:STREAMS_MAX]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError, ValueError):
        return None
    if not form:
        return None
    pictures, sounds, covers = [], [], 0
    for each in streams:
        marks = each.get("disposition") or {}
        index, codec, default = _whole(each.get("index")), _name(each.get("codec_name")), marks.get("default") == 1
        if each.get("codec_type") == "video":
            width, height = _whole(each.get("width")), _whole(each.get("height"))
            if marks.get("attached_pic") == 1 or marks.get("still_image") == 1 or not codec:
                covers += 1
            elif 0 < width <= SIDE_MAX and 0 < height <= SIDE_MAX:
                turns = [_number(one.get("rotation")) for one in each.get("side_data_list") or []]
                square = each.get("sample_aspect_ratio") in (None, "1:1", "0:1")
                fps = _ratio(each.get("avg_frame_rate"))
                stream = PictureStream(index=index, codec=codec, width=width, height=height, default=default)
                turned = any(round(turn) % 180 for turn in turns)
                pictures.append(msgspec.structs.replace(stream, turned=turned, square=square, fps=fps))
        elif each.get("codec_type") == "audio" and codec:
            channels, rate = _whole(each.get("channels")), _whole(each.get("sample_rate"))
            stream_ = SoundStream(index=index, codec=codec, channels=channels, sample_rate=rate, default=default)
            sounds.append(stream_)
    duration_s = _number(form.get("duration"))
    name = str(form.get("format_name", ""))[:WORD_CHARS_MAX]
    return Media(name, duration_s if duration_s > 0 else None, tuple(pictures), tuple(sounds), covers)


def _name(value: object) -> str:
    word = value[:WORD_CHARS_MAX] if isinstance(value, str) else ""
    return "" if word in ("none", "unknown") else NAMES.get(word, word)


def _number(value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) else 0.0
    except ValueError:
        return 0.0
    return number if -1e9 < number < 1e9 else 0.0


def _whole(value: object) -> int:
    return int(_number(value))


def _ratio(value: object) -> float:
    over, _, under = str(value).partition("/")
    below = _number(under) if under else 1.0
    fps = _number(over) / below if below else 0.0
    return fps if 0 < fps <= FPS_SEEN_MAX else 0.0


# -- ffmpeg's own report -----------------------------------------------------------------------------------------

_input = re.compile(r"^Input #0, (\S{1,64}), from ")
_duration = re.compile(r"^  Duration: (?:(\d+):(\d\d):(\d\d\.\d+)|N/A)")
_stream = re.compile(r"^  Stream #0:(\d{1,5})(?:\[0x[0-9a-f]+\])?(?:\([^)]*\))?: (Video|Audio): (\w+)(.*)$")
_size = re.compile(r", (\d{1,5})x(\d{1,5})(?:,? \[?SAR (\d+):(\d+) )?")
_fps = re.compile(r", (\d+(?:\.\d+)?)(k?) fps")
_sound = re.compile(r", (\d{1,7}) Hz, (?:(\d{1,3}) channels|([\w.]+))")
_turn = re.compile(r"^ +[Dd]isplay ?[Mm]atrix: rotation of (-?\d+(?:\.\d+)?) degrees")
_CHANNELS = {"mono": 1, "stereo": 2, "downmix": 2}


def read_report(text: str) -> Media | None:
    """Read what ``ffmpeg -i`` prints of an input; None: nothing that could be used."""
    name, duration_s, covers = "", None, 0
    pictures: list[PictureStream] = []
    sounds: list[SoundStream] = []
    last = False
    for line in text.splitlines():
        if not name:
            begun = _input.match(line)
            name = begun[1].rstrip(",") if begun else ""
        elif said := _duration.match(line):
            if said[1] is not None:
                duration_s = int(said[1]) * 3600 + int(said[2]) * 60 + float(said[3]) or None
        elif (turn := _turn.match(line)) and last and round(float(turn[1])) % 180:
            pictures[-1] = msgspec.structs.replace(pictures[-1], turned=True)
        elif (said := _stream.match(line)) and len(pictures) + len(sounds) < STREAMS_MAX:
            last = False
            index, kind, codec, rest = int(said[1]), said[2], _name(said[3]), said[4]
            if kind == "Audio":
                sounds += _sounds_of(index, codec, rest)
            elif "(attached pic)" in rest or "(still image)" in rest or not codec:
                covers += 1
            elif picture := _picture_of(index, codec, rest):
                pictures.append(picture)
                last = True
    return Media(name, duration_s, tuple(pictures), tuple(sounds), covers) if name else None


def _picture_of(index: int, codec: str, rest: str) -> PictureStream | None:
    size, fps = _size.search(rest), _fps.search(rest)
    width, height = (int(size[1]), int(size[2])) if size else (0, 0)
    if not (0 < width <= SIDE_MAX and 0 < height <= SIDE_MAX):
        return None
    assert size is not None
    rate = float(fps[1]) * (1000 if fps[2] else 1) if fps else 0.0
    return PictureStream(
        index=index,
        codec=codec,
        width=width,
        height=height,
        square=size[3] in (None, "0") or size[3] == size[4],
        fps=rate if rate <= FPS_SEEN_MAX else 0.0,
        default="(default)" in rest,
    )


def _sounds_of(index: int, codec: str, rest: str) -> list[SoundStream]:
    said = _sound.search(rest)
    if not said or not codec:
        return []
    layout = said[3] or ""
    parts = layout.partition(".")
    channels = int(said[2]) if said[2] else _CHANNELS.get(layout, 0)
    if not channels and parts[0].isdigit():
        channels = int(parts[0]) + sum(map(int, re.findall(r"\d", parts[2])))  # 5.1 are six.
    default = "(default)" in rest
    return [SoundStream(index=index, codec=codec, channels=channels, sample_rate=int(said[1]), default=default)]
