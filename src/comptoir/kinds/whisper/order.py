"""What an order asks for: its body, read and checked field by field before anything is held or fetched."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from comptoir.kinds.errors import BadOrderField
from comptoir.kinds.files import InputFile
from comptoir.kinds.whisper.languages import AUTO, ENGLISH, LANGUAGE_CHARS_MAX, LANGUAGES, language_code

SECONDS_MAX = 14_400
"""Longest sound of one job: four hours. Four gibibytes of film are cut into more jobs."""
SECONDS_OPEN = 3_600
"""``seconds_max`` of an order that names none."""
SECONDS_FREE = 60
BYTES_PER_SECOND_MIN = 8
"""An input of *n* bytes is no sound of more than `SECONDS_FREE` + *n* / this seconds: the smallest that encoders write
of silence has some 20 bytes a second. What is longer is refused before it is worked on, so that a host's word about the
length has a bound in what is known of the input."""
PROMPT_CHARS_MAX = 1_000
"""Longest ``initial_prompt``. A model takes `PROMPT_TOKENS_MAX`, which are fewer characters in any language."""
PROMPT_TOKENS_MAX = 223
"""Most tokens of a prompt that a model takes; one of more is refused by the host, since it would be cut."""
TOKEN_MAX = 51_863
"""Highest token that every Whisper model has."""
SUPPRESSED_MAX = 1_024
"""Most of ``suppress_tokens``."""
SPECIAL = -1
"""In ``suppress_tokens``: all that are no speech, as the model's authors list them."""
WIDTH_MAX = 10
"""Most beams, or tries of one window, as of the published service."""

Outputs = Literal["txt", "srt", "vtt", "json"]
MEDIA = {"txt": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt", "json": "application/json"}
"""Files that can be ordered, by their ending, and what they are."""


class WhisperBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of an order: the fields of the published service, ``inputs`` for its address, and some more."""

    inputs: Annotated[tuple[InputFile, ...], Meta(min_length=1, max_length=1)]
    language: Annotated[str, Meta(max_length=LANGUAGE_CHARS_MAX)] | None = None
    """A code or a name (`languages.language_code`). None, or ``auto``: the model hears which it is."""
    task: Literal["transcribe", "translate"] = "transcribe"
    """``translate``: into English."""
    temperature: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Of the first try; where it is no good, each next one has 0.2 more, as in Whisper's own program."""
    best_of: Annotated[int, Meta(ge=1, le=WIDTH_MAX)] = 5
    """Tries of a window at a temperature above 0, of which the likeliest is taken."""
    beam_size: Annotated[int, Meta(ge=1, le=WIDTH_MAX)] = 5
    """Beams at temperature 0."""
    patience: Annotated[float, Meta(ge=0, le=2)] = 1.0
    """How many times *beam_size* texts have to be complete before the search ends. 0 is 1, as in Whisper."""
    suppress_tokens: (
        Annotated[
            tuple[Annotated[int, Meta(ge=SPECIAL, le=TOKEN_MAX)], ...],
            Meta(max_length=SUPPRESSED_MAX),
        ]
        | Annotated[str, Meta(max_length=8 * SUPPRESSED_MAX)]
        | None
    ) = None
    """Tokens that are never said; a list, or numbers with commas between them. -1: those that are no speech. None: -1;
    an empty one: none."""
    initial_prompt: Annotated[str, Meta(max_length=PROMPT_CHARS_MAX)] | None = None
    """What might have been said before: names, spellings, style."""
    condition_on_previous_text: bool = True
    """Whether a window is heard with what was said before it."""
    fp16: bool = True
    """False: the model computes in 32 bits. True: in what its host has, which is faster."""
    verbose: bool = False
    """Whether segments also have tokens and measures (`spoken.SpokenSegment`)."""
    word_timestamps: bool = False
    """Whether segments also have words, each with its times."""
    vad: bool = True
    """Whether stretches in which nobody speaks are left out before the model hears them, so that it invents nothing."""
    outputs: Annotated[tuple[Outputs, ...], Meta(max_length=len(MEDIA))] = ()
    """Files to be made beside the result."""
    seconds_max: Annotated[int, Meta(ge=1, le=SECONDS_MAX)] = SECONDS_OPEN
    """Longest sound that is taken and paid; a longer one is refused."""


class SpeechOrder(msgspec.Struct, frozen=True):
    """A body that was checked, with what it leaves open filled in."""

    body: WhisperBody
    language: str
    """A code of `languages.LANGUAGES`; empty: it has to be heard."""
    suppress_tokens: tuple[int, ...]

    @property
    def milliseconds_max(self) -> int:
        """The units that its hold covers, of a file whose size is known not more than it can be."""
        most = self.body.seconds_max * 1_000
        size = self.body.inputs[0].size
        return most if size is None else min(most, milliseconds_believed(size))


_body_in = msgspec.json.Decoder(WhisperBody).decode


def read_order(body: bytes) -> SpeechOrder:
    """Read an order's body.

    Raises:
        BadOrderField: it can't be carried out; names the field.
    """
    try:
        asked = _body_in(body)
    except msgspec.ValidationError as error:
        words, _, where = str(error).partition(" - at `$")
        raise BadOrderField(where.rstrip("`").lstrip(".") or "body", words) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadOrderField("body", f"is no JSON object: {error}") from error
    if len(set(asked.outputs)) != len(asked.outputs):
        raise BadOrderField("outputs", "names each file once")
    if round(asked.beam_size * (asked.patience or 1.0)) < 1:
        raise BadOrderField("patience", f"times beam_size ({asked.beam_size}) is at least one text, or it is 0")
    return SpeechOrder(asked, _language_of(asked.language), _suppressed(asked.suppress_tokens))


def _language_of(text: str | None) -> str:
    if text is None or text.strip().lower() in ("", AUTO):
        return ""
    code = language_code(text)
    if not code:
        values = ", ".join(LANGUAGES)
        raise BadOrderField("language", f"is {AUTO}, a language's English name, or one of {values}; not {text!r}")
    return code


def _suppressed(said: tuple[int, ...] | str | None) -> tuple[int, ...]:
    if said is None:
        return (SPECIAL,)
    if isinstance(said, str):
        words = [word.strip() for word in said.split(",")] if said.strip() else []
        if not all(word.removeprefix("-").isascii() and word.removeprefix("-").isdigit() for word in words):
            raise BadOrderField("suppress_tokens", f"is whole numbers with commas between them, not {said[:40]!r}")
        said = tuple(int(word[:8]) for word in words)
    if len(said) > SUPPRESSED_MAX or not all(SPECIAL <= token <= TOKEN_MAX for token in said):
        raise BadOrderField(
            "suppress_tokens", f"are at most {SUPPRESSED_MAX} numbers, each from {SPECIAL} to {TOKEN_MAX}"
        )
    return tuple(dict.fromkeys(said))


def milliseconds_believed(input_bytes: int) -> int:
    """Return the longest sound that so many bytes can be."""
    return SECONDS_FREE * 1_000 + input_bytes * 1_000 // BYTES_PER_SECOND_MIN


def asks_other_languages(order: SpeechOrder) -> bool:
    """Tell whether an English-only model can't do it; where it is left open, it hears English."""
    return order.language not in ("", ENGLISH)
