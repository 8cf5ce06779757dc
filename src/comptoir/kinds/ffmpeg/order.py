"""What an order asks for: its body, read and checked field by field before anything is held or fetched."""

import math
import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from comptoir.kinds.errors import BadOrderField
from comptoir.kinds.ffmpeg.arguments import (
    CHANNELS_ANY,
    CHANNELS_MAX,
    PIXELS,
    SAMPLE_RATES,
    SAMPLE_RATES_ANY,
    SECONDS_MAX,
    TUNES,
    CustomArgs,
    read_arguments,
    read_rate,
)
from comptoir.kinds.ffmpeg.formats import AUDIO_CODECS, FORMATS, GIF, PRESETS, VIDEO_CODECS, WITHOUT_BITRATE, FileFormat
from comptoir.kinds.ffmpeg.work import FPS_MAX, OPEN_FPS, OPEN_PIXELS, PIXELS_MAX, WIDTH_MAX, Picture, units_of
from comptoir.kinds.files import InputFile

PRESET = "medium"
CRF = 23
CRF_MAX = 51
"""The worst quality of the published service; H.264 and H.265 have none below."""
AUDIO_RATE_BPS = 128_000
AUDIO_RATES_BPS = {"aac": (8_000, 512_000), "mp3": (8_000, 320_000), "opus": (6_000, 256_000)}
"""Least and most of each codec of sound that has one."""
SIDE_MIN = 16
"""Shortest side of a frame that every encoder takes."""
SECONDS_OPEN = 600
"""``seconds_max`` of an order that names neither it nor ``-t``."""
ARGUMENTS_MAX = 64
"""Words of ``custom_args``: more than all that are allowed, each once."""
ARGUMENT_CHARS_MAX = 64
"""Longest of them."""

Rate = Annotated[str, Meta(max_length=12, pattern=r"\A[0-9]+[kM]?\Z")]


class FfmpegBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of an order: the fields of the published service, ``inputs`` for its address, and a cap."""

    inputs: Annotated[tuple[InputFile, ...], Meta(min_length=1, max_length=1)]
    output_format: Literal[tuple(FORMATS)] = "mp4"  # type: ignore[valid-type]
    codec: Literal[VIDEO_CODECS] | None = None  # type: ignore[valid-type]
    """None: the first that the format has; H.264 where it can be."""
    preset: Literal[PRESETS] | None = None  # type: ignore[valid-type]
    """How much time is taken for how small a file. None: medium."""
    crf: Annotated[int, Meta(ge=0, le=CRF_MAX)] | None = None
    """Quality, 0 the best. None: 23, unless *bitrate* says how large it may be. With both, *bitrate* is its bound."""
    resolution: Annotated[str, Meta(max_length=11, pattern=r"\A[0-9]+x[0-9]+\Z")] | None = None
    """``1280x720``: the size of the frames; what has another shape is put into the middle. None: as the input is."""
    bitrate: Rate | None = None
    """Bits a second of the pictures, on average."""
    fps: Annotated[float, Meta(ge=1, le=FPS_MAX)] | None = None
    """None: as the input has."""
    audio_codec: Literal[AUDIO_CODECS] | None = None  # type: ignore[valid-type]
    """None: the first that the format has; AAC where it can be."""
    audio_bitrate: Rate | None = None
    """None: 128k."""
    custom_args: Annotated[
        tuple[Annotated[str, Meta(max_length=ARGUMENT_CHARS_MAX)], ...], Meta(max_length=ARGUMENTS_MAX)
    ] = ()
    seconds_max: Annotated[int, Meta(ge=1, le=SECONDS_MAX)] | None = None
    """Most seconds of output that are made and paid. None: what ``-t`` says, else ten minutes."""


class FilmOrder(msgspec.Struct, frozen=True):
    """A body that was checked, with what it leaves open filled in."""

    output_format: str
    file_format: FileFormat
    codec: str
    """Empty: the format is for sound alone."""
    preset: str
    crf: int | None
    """None: the bitrate decides, or there is none to choose."""
    bitrate_bps: int | None
    size: tuple[int, int] | None
    fps: float | None
    audio_codec: str
    """Empty: it is to be silent."""
    audio_rate_bps: int | None
    """None: the codec loses nothing."""
    arguments: CustomArgs
    seconds_max: int

    @property
    def length_s(self) -> float:
        """The most seconds of output that it can have."""
        length_s = self.arguments.length_s
        return self.seconds_max if length_s is None else length_s

    @property
    def units_max(self) -> int:
        """The units that its hold covers: all that is left open is as large as `work.OPEN_PIXELS` and `OPEN_FPS`."""
        picture = None
        if self.codec:
            width, height = self.size or (OPEN_PIXELS, 1)
            frames = int(self.length_s * (self.fps or OPEN_FPS)) + 1
            picture = Picture(self.codec, width, height, frames)
        sound_ms = int(self.length_s * 1000) + 1 if self.audio_codec else 0
        return units_of(picture, preset=self.preset, sound_ms=sound_ms)


_MPEG = ("h264", "h265")
_GOES_WITH = {
    "profile": ("h264",),
    "level": ("h264",),
    "b_frames": _MPEG,
    "refs": _MPEG,
    "rate_max_bps": _MPEG,
    "buffer_bits": _MPEG,
    "keyframes": VIDEO_CODECS,
}

_body_in = msgspec.json.Decoder(FfmpegBody).decode
_WORDS = {"output_format": tuple(FORMATS), "codec": VIDEO_CODECS, "preset": PRESETS, "audio_codec": AUDIO_CODECS}
_where = re.compile(r" - at `\$(?:\.(\w+))?.*`\Z", re.DOTALL)


def read_order(body: bytes) -> FilmOrder:
    """Read and check the body of an order.

    Raises:
        BadOrderField: it can't be carried out, whatever the input is; it names the field.
    """
    try:
        asked = _body_in(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        words, place = str(error), _where.search(str(error))
        field = place[1] if place and place[1] else "body"
        known = _WORDS.get(field)
        raise BadOrderField(field, f"is one of {', '.join(known)}" if known else _where.sub("", words)) from error
    _check_input(asked.inputs[0])
    file_format = FORMATS[asked.output_format]
    arguments = read_arguments(asked.custom_args)
    codec = _codec_of(asked, file_format)
    _check_pictures(asked, codec, arguments)
    audio_codec, audio_rate_bps = _sound_of(asked, file_format, arguments)
    if not codec and not audio_codec:
        raise BadOrderField("custom_args", f"-an leaves nothing of {asked.output_format}, which is for sound alone")
    crf = asked.crf if asked.crf is not None or asked.bitrate else CRF
    return FilmOrder(
        asked.output_format,
        file_format,
        codec,
        asked.preset or PRESET,
        crf if codec in VIDEO_CODECS else None,
        read_rate(asked.bitrate, "bitrate") if asked.bitrate else None,
        _size_of(asked.resolution, codec, arguments) if asked.resolution else None,
        asked.fps,
        audio_codec,
        audio_rate_bps,
        arguments,
        _seconds_of(asked.seconds_max, arguments),
    )


def _check_input(given: InputFile) -> None:
    if bool(given.file) == bool(given.url):
        raise BadOrderField("inputs", "names one file: either file, by its id, or url")


def _codec_of(asked: FfmpegBody, file_format: FileFormat) -> str:
    name = asked.output_format
    if not file_format.video or file_format.video == (GIF,):
        given = [field for field in ("codec", "preset", "crf", "bitrate") if getattr(asked, field) is not None]
        if not file_format.video:
            given += [field for field in ("resolution", "fps") if getattr(asked, field) is not None]
        if given:
            kind = "is for sound alone" if not file_format.video else "has no choice of it"
            raise BadOrderField(given[0], f"can't be chosen: {name} {kind}")
        return GIF if file_format.video else ""
    codec = asked.codec or file_format.video[0]
    if codec not in file_format.video:
        raise BadOrderField("codec", f"{codec} does not go into {name}, which takes {' or '.join(file_format.video)}")
    return str(codec)


def _check_pictures(asked: FfmpegBody, codec: str, arguments: CustomArgs) -> None:
    """Refuse arguments that the codec has not, or that contradict each other."""
    of_codec = {"tune": TUNES, "pix_fmt": PIXELS}
    for field, table in of_codec.items():
        value, known = getattr(arguments, field), table.get(codec, ())
        if value is not None and value not in known:
            words = f"is one of {', '.join(known)} with {codec}" if known else "can't be chosen here"
            raise BadOrderField("custom_args", f"-{field} {words}, not {value!r}")
    for name, codecs in _GOES_WITH.items():
        if getattr(arguments, name) is not None and codec not in codecs:
            raise BadOrderField("custom_args", f"{name} goes with {', '.join(codecs)} alone")
    if arguments.profile and (asked.crf == 0 or arguments.pix_fmt not in (None, "yuv420p")):
        raise BadOrderField("custom_args", f"-profile:v {arguments.profile} allows neither crf 0 nor another -pix_fmt")
    if arguments.rate_max_bps is None and arguments.buffer_bits is not None:
        raise BadOrderField("custom_args", "-bufsize goes with -maxrate")
    if arguments.rate_max_bps is not None and asked.bitrate and asked.crf is not None:
        raise BadOrderField("bitrate", "is the bound of crf already, and -maxrate another")


def _sound_of(asked: FfmpegBody, file_format: FileFormat, arguments: CustomArgs) -> tuple[str, int | None]:
    """Return codec and bits a second of the sound."""
    silent = arguments.silent or not file_format.audio
    if silent:
        given = [field for field in ("audio_codec", "audio_bitrate") if getattr(asked, field) is not None]
        if given:
            raise BadOrderField(given[0], f"can't be chosen: the {asked.output_format} is to be silent")
        if arguments.channels is not None or arguments.sample_rate is not None:
            raise BadOrderField(
                "custom_args", f"-ac and -ar can't be chosen: the {asked.output_format} is to be silent"
            )
        return "", None
    codec = str(asked.audio_codec or file_format.audio[0])
    if codec not in file_format.audio:
        taken = " or ".join(file_format.audio)
        raise BadOrderField("audio_codec", f"{codec} does not go into {asked.output_format}, which takes {taken}")
    channels, rates = CHANNELS_MAX.get(codec, CHANNELS_ANY), SAMPLE_RATES.get(codec, SAMPLE_RATES_ANY)
    if arguments.channels is not None and arguments.channels > channels:
        raise BadOrderField("custom_args", f"-ac is at most {channels} with {codec}")
    if arguments.sample_rate is not None and arguments.sample_rate not in rates:
        raise BadOrderField("custom_args", f"-ar is one of {', '.join(map(str, rates))} with {codec}")
    if codec in WITHOUT_BITRATE:
        if asked.audio_bitrate is not None:
            raise BadOrderField("audio_bitrate", f"can't be chosen: {codec} loses nothing")
        return codec, None
    bps = read_rate(asked.audio_bitrate, "audio_bitrate") if asked.audio_bitrate else AUDIO_RATE_BPS
    least, most = AUDIO_RATES_BPS[codec]
    if not least <= bps <= most:
        raise BadOrderField("audio_bitrate", f"is from {least // 1000}k to {most // 1000}k with {codec}")
    return codec, bps


def _seconds_of(asked: int | None, arguments: CustomArgs) -> int:
    if arguments.length_s is None:
        return asked or SECONDS_OPEN
    if asked is not None and arguments.length_s > asked:
        raise BadOrderField("custom_args", f"-t is {arguments.length_s:g}, and seconds_max is {asked}")
    return asked or math.ceil(arguments.length_s)


def _size_of(text: str, codec: str, arguments: CustomArgs) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    if not (SIDE_MIN <= width <= WIDTH_MAX and SIDE_MIN <= height <= WIDTH_MAX and width * height <= PIXELS_MAX):
        raise BadOrderField(
            "resolution", f"has sides from {SIDE_MIN} to {WIDTH_MAX}, and at most 8K in all, not {text}"
        )
    if codec != GIF and arguments.pix_fmt != "yuv444p" and (width % 2 or height % 2):
        raise BadOrderField("resolution", f"has even sides, because {codec} halves its colours, not {text}")
    return width, height
