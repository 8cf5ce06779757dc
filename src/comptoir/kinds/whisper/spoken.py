"""What was heard: the frames of a job, its result, and the rules that tie what is paid to them.

Times are in seconds from the beginning of the sound, with three decimals; they are whole milliseconds.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from comptoir.kinds.files import FileExtra
from comptoir.kinds.whisper.order import SECONDS_MAX, SpeechOrder, milliseconds_believed
from comptoir.link import Frame

RESULT_BYTES_MAX = 900_000
"""Longest result that has its segments; they stand in the frames, and in the file ``json``, whatever it is."""

Time = Annotated[float, Meta(ge=0, le=SECONDS_MAX)]
Code = Annotated[str, Meta(max_length=8)]


class SpokenWord(msgspec.Struct, frozen=True):
    """One word."""

    word: Annotated[str, Meta(max_length=1_000)]
    """As the model writes it, with the space before it."""
    start: Time
    end: Time
    probability: Annotated[float, Meta(ge=0, le=1)]


class SpokenSegment(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of speech, as the model cuts it. Those of one job neither overlap nor come out of order."""

    id: Annotated[int, Meta(ge=0)]
    """From 0."""
    start: Time
    end: Time
    text: Annotated[str, Meta(max_length=10_000)]
    words: tuple[SpokenWord, ...] | None = None
    """Only with ``word_timestamps``."""
    tokens: tuple[int, ...] | None = None
    """This and what follows only with ``verbose``."""
    temperature: float | None = None
    avg_logprob: float | None = None
    compression_ratio: float | None = None
    no_speech_prob: float | None = None


class HeardLanguage(msgspec.Struct, frozen=True):
    """The language of a job, as it was asked for, or heard at its beginning."""

    language: Code
    probability: Annotated[float, Meta(ge=0, le=1)]


class SpokenExtra(FileExtra, omit_defaults=True):
    """What may stand beside a frame's text: one of these, or what any job with files has."""

    heard: HeardLanguage | None = None
    segment: SpokenSegment | None = None
    """Its text is the frame's."""
    silent_to: Time | None = None
    """Up to here, nothing more was said."""


class Transcript(msgspec.Struct, frozen=True):
    """The result of a job."""

    text: str
    """All of it; empty: nobody speaks."""
    language: Code | None
    """None: it was left open, and nobody speaks."""
    duration: Time
    """Of the sound."""
    task: str
    segments: tuple[SpokenSegment, ...] | None
    """None: they are too many for one frame (`RESULT_BYTES_MAX`)."""


_encode = msgspec.json.Encoder().encode
_extra_in = msgspec.json.Decoder(SpokenExtra).decode


def spoken_extra(extra: bytes) -> SpokenExtra:
    """Return what a frame's *extra* says; nothing if it can't be read, which `Whisper.check_extra` refuses."""
    try:
        return _extra_in(extra) if extra else SpokenExtra()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return SpokenExtra()


def spoken_frame(text: str = "", count: int = 0, **fields: object) -> Frame:
    """Return a frame of *text* that stands for *count* milliseconds, with the *fields* of `SpokenExtra`."""
    return Frame(text, count, _encode(SpokenExtra(**fields)))  # type: ignore[arg-type]


def milliseconds(seconds: float) -> int:
    """Return a time in whole milliseconds."""
    return round(seconds * 1_000)


class Heard(msgspec.Struct):
    """What some frames say was heard so far: where the next host goes on."""

    position_ms: int = 0
    """Up to where it is counted."""
    language: HeardLanguage | None = None
    segments: list[SpokenSegment] = []
    files: list[str] = []
    """What was delivered, by name."""
    result: bytes = b""


def heard_in(frames: Sequence[Frame]) -> Heard:
    """Fold *frames*, which begin with the sound."""
    position_ms, language, result = 0, None, b""
    segments: list[SpokenSegment] = []
    files: list[str] = []
    for frame in frames:
        position_ms += frame.tokens
        if not frame.extra:
            continue
        said = spoken_extra(frame.extra)
        language = said.heard or language
        if said.segment is not None:
            segments.append(said.segment)
        if said.artifact is not None:
            files.append(said.artifact.name)
        if said.result is not msgspec.UNSET:
            result = bytes(said.result)
    return Heard(position_ms, language, segments, files, result)


def text_of(segments: Sequence[SpokenSegment]) -> str:
    """Return all that was said."""
    return "".join([each.text for each in segments]).strip()


def wrong_transcript(made: Transcript, order: SpeechOrder, heard: Heard, *, input_bytes: int | None) -> str:
    """Return why *made* can't be the result of *order*, of whose frames *heard* was read; empty: it can.

    Args:
        input_bytes: of the input, where they are known.
    """
    duration_ms, body = milliseconds(made.duration), order.body
    if duration_ms > body.seconds_max * 1_000:
        return f"a sound of {duration_ms} ms was to be refused: {body.seconds_max} s were ordered"
    if input_bytes is not None and duration_ms > milliseconds_believed(input_bytes):
        return f"{input_bytes} bytes are no sound of {duration_ms} ms"
    if heard.position_ms != duration_ms:
        return f"a sound of {duration_ms} ms is not {heard.position_ms} units"
    if made.task != body.task or (order.language and made.language != order.language):
        return f"it is {made.task} of {made.language}, which was not ordered"
    if made.segments is not None and list(made.segments) != heard.segments:
        return "its segments are not those of its frames"
    if made.text != text_of(heard.segments):
        return "its text is not that of its segments"
    if len(heard.files) != len(body.outputs):
        return f"{len(heard.files)} files came, and {len(body.outputs)} were ordered"
    return wrong_times(heard.segments, duration_ms)


def wrong_times(segments: Sequence[SpokenSegment], duration_ms: int) -> str:
    """Return what is wrong with the times of *segments*: each begins and ends within the sound, after the last one."""
    before_ms = 0
    for number, each in enumerate(segments):
        start_ms, end_ms = milliseconds(each.start), milliseconds(each.end)
        if each.id != number or not before_ms <= start_ms <= end_ms <= duration_ms:
            return f"segment {each.id} from {each.start} to {each.end} s does not follow {before_ms} ms"
        for word in each.words or ():
            if not start_ms <= milliseconds(word.start) <= milliseconds(word.end) <= end_ms:
                return f"a word of segment {each.id} is from {word.start} to {word.end} s"
        before_ms = end_ms
    return ""
