"""What a host may send beside a frame's text (`comptoir.link.Frame.extra`), checked before anybody else is shown it.

The bytes stay as the host sent them, because the running hash that it signs is over them. They are passed on to the
parsers of buyers and of the next host, so they have to be JSON that every one of those reads, and reads alike.
"""

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

EXTRA_BYTES_MAX = 16 * 1024 * 1024
"""Longest extra of one frame where its kind names no other bound."""

EXTRA_DEPTH_MAX = 32
"""Deepest nesting of objects and lists. Tool calls and probabilities have about six."""

FINISH_REASON_CHARS_MAX = 64
"""Longest finish reason; the longest that engines are known to give has 31 characters."""

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

INTEGER_BITS_MAX = 1023
"""Longest integer: JavaScript reads a longer one as infinity, and Go not at all."""

_many_digits = re.compile(rb"[0-9]{308}").search
_decode = msgspec.json.Decoder(dict[str, Any]).decode

T = TypeVar("T")


FinishReason = Annotated[str, Meta(max_length=FINISH_REASON_CHARS_MAX)]


class BadExtra(ValueError):
    """What stands beside a frame's text can't be passed on; the message says why, in words for a log."""


class PlainExtra(msgspec.Struct):
    """What is read here of any kind's extra."""

    finish_reason: FinishReason | None = None


def check_size(extra: bytes, bytes_max: int) -> None:
    """Refuse an *extra* longer than *bytes_max*.

    Raises:
        BadExtra: it is.
    """
    if len(extra) > bytes_max:
        raise BadExtra(f"it has {len(extra):,} bytes, and {bytes_max:,} are allowed")


def read_extra(extra: bytes, shape: type[T], *, bytes_max: int) -> T:
    """Decode *extra* in full, also the fields that *shape* doesn't name.

    Raises:
        BadExtra: it is longer than *bytes_max*, no JSON object in UTF-8, nested deeper than `EXTRA_DEPTH_MAX`, or holds
            a number that not every parser can hold, or a field of another type than *shape* says.
    """
    check_size(extra, bytes_max)
    try:
        fields = _decode(extra)
        if _may_be_deep(extra) or _many_digits(extra):
            _check_values(fields)
        return msgspec.convert(fields, shape)
    except (msgspec.MsgspecError, UnicodeError, OverflowError, RecursionError) as error:
        raise BadExtra(str(error)) from error


def _may_be_deep(extra: bytes) -> bool:
    """Tell, without looking at each value, whether the nesting is worth a look; brackets in strings count too."""
    if extra.count(b"[") + extra.count(b"{") <= EXTRA_DEPTH_MAX:
        return False
    brackets = extra.translate(None, _NO_BRACKETS)
    for _ in range(EXTRA_DEPTH_MAX // 2):  # Each round takes off one level, or two.
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if not brackets:
            return False
    return True


def _check_values(fields: dict[str, Any]) -> None:
    level: list[Any] = [fields]
    for _ in range(EXTRA_DEPTH_MAX):
        values = [value for outer in level for value in (outer.values() if type(outer) is dict else outer)]
        if any(type(value) is int and value.bit_length() > INTEGER_BITS_MAX for value in values):
            raise BadExtra("an integer in it is beyond a float")
        level = [value for value in values if type(value) is dict or type(value) is list]
        if not level:
            return
    raise BadExtra(f"it is nested deeper than {EXTRA_DEPTH_MAX}")
