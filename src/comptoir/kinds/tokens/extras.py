"""What engines send beside text: deltas, probabilities, choices; and vectors, which come in place of it."""

import base64
import binascii
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from comptoir.kinds.extras import BadExtra, FinishReason, check_size
from comptoir.kinds.output import NO_OUTPUT, Size, value_size

TEXT_EXTRA_BYTES_MAX = 1024 * 1024
"""Longest extra of one piece of text: a whole tool call, or the probabilities of some hundred tokens."""

VECTORS_BYTES_MAX = 60 * 1024 * 1024
"""Longest list of vectors: all of them come in one frame, and a worker's frame may have this (`worker.leases`)."""

INDEX_MAX = 2**20 - 1
"""Largest number of a choice: 128 for each of some thousand prompts."""

FLOAT_BYTES = 4

Index = Annotated[int, Meta(ge=0, le=INDEX_MAX)]


class _ToolCall(msgspec.Struct):
    """A tool call, or a fragment of one; SDKs put them together by these fields."""

    index: Index | None = None
    id: str | int | None = None
    type: str | None = None
    function: dict[str, Any] | None = None


class _Delta(msgspec.Struct):
    role: str | None = None
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: dict[str, Any] | None = None


class TextExtra(msgspec.Struct):
    """What may stand beside a piece of text; other fields may be anything."""

    delta: _Delta | None = None
    logprobs: dict[str, Any] | None = None
    index: Index = 0
    finish_reason: FinishReason | None = None
    chunk: dict[str, Any] | None = None
    choice: dict[str, Any] | None = None
    blank: dict[str, Any] | None = None
    ids: list[int] = []
    """Token ids of the piece, as a worker with llama.cpp sends them for the next one."""
    stop: bool = False


class _OnlyDelta(msgspec.Struct):
    delta: dict[str, Any] | None = None


_decode_delta = msgspec.json.Decoder(_OnlyDelta).decode


def delta_size(extra: bytes) -> Size:
    """Return the size of what the delta in *extra* says (reasoning, a tool call, a refusal), but for the role."""
    if b"delta" not in extra and b"\\u" not in extra:
        return NO_OUTPUT  # Probabilities and finish reasons, without decoding them once more.
    try:
        delta = _decode_delta(extra).delta
        return value_size([value for name, value in delta.items() if name != "role"]) if delta else NO_OUTPUT
    except (ValueError, RecursionError):
        return NO_OUTPUT  # Stored before it was checked when it came (`Kind.check_extra`).


class _Vector(msgspec.Struct, forbid_unknown_fields=True):
    embedding: Annotated[list[float], Meta(min_length=1)] | Annotated[str, Meta(min_length=1)]
    index: Index = 0
    object: str = ""


class _Vectors(msgspec.Struct, forbid_unknown_fields=True):
    data: list[_Vector]


def vectors_size(extra: bytes) -> Size:
    """Return the size of a checked list of vectors; a list without any says nothing."""
    return (
        (len(extra), 0) if extra.count(b":") > 1 else NO_OUTPUT
    )  # The first names the list, the others what is in it.


_decode_vectors = msgspec.json.Decoder(_Vectors).decode


def check_vectors(extra: bytes) -> None:
    """Do nothing if *extra* is a list of vectors, in numbers or in base64 of 32-bit floats.

    Read by its own decoder: as objects, some million numbers would take several times as long.

    Raises:
        BadExtra: it is anything else, has an empty vector, or is longer than `VECTORS_BYTES_MAX`.
    """
    check_size(extra, VECTORS_BYTES_MAX)
    try:
        for vector in _decode_vectors(extra).data:
            said = vector.embedding
            if isinstance(said, str) and len(base64.b64decode(said, validate=True)) % FLOAT_BYTES:
                raise BadExtra("a vector in base64 is no whole number of floats")
    except (msgspec.MsgspecError, UnicodeError, binascii.Error, RecursionError) as error:
        raise BadExtra(str(error)) from error
