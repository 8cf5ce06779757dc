"""Whole numbers that are spelled like fractions: ``1.0`` and ``1e3`` are integers by JSON Schema, as some clients write
them, and msgspec takes neither where a type says ``int``.

Such a body is spelled anew, and only where it was refused for that: a body as it should be is passed on byte for byte.
"""

import re
from collections.abc import Iterator
from decimal import Decimal

from comptoir.kit.errors import InvalidField

DIGITS_MAX = 64
"""Letters of a number that is spelled anew; a longer one is left as it is."""

FRACTIONS_MAX = 10_000
"""Numbers of one body that are spelled anew, 1 us each; one with more is refused as it is."""

SPELLED_BYTES_MAX = 256 << 10
"""Longest body that is spelled anew: to find the end of one text of this length takes up to 10 ms. A longer one is
refused as it is."""

STEP_BYTES = 64 << 10
"""Bytes between two texts that are looked at in one step: at most some 4 ms."""

LARGEST = 10**20
"""A larger one is no integer of 64 bits, however it is spelled."""

# Nothing is tried twice: a run of digits is looked at once, however long it is.
_FRACTION = re.compile(rb"(?<![0-9])-?[0-9]++(?:\.[0-9]++(?:[eE][+-]?[0-9]++)?|[eE][+-]?[0-9]++)")

_REST_OF_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+"', re.DOTALL)

_QUOTE = b'"'


class TooManyFractions(ValueError):
    """More numbers are spelled like fractions than are spelled anew, or in a longer body."""


def is_spelling(error: InvalidField) -> bool:
    """Tell whether a fraction stood where an integer belongs."""
    return error.reason.endswith(", got `float`") and bool(re.search(r"\bint\b", error.reason))


def spelled_step_by_step(body: bytes) -> Iterator[bytes]:
    """Yield *body* in pieces, in which whole numbers outside of texts are spelled without a fraction.

    Raises:
        TooManyFractions: there are more than `FRACTIONS_MAX`, or the body is longer than `SPELLED_BYTES_MAX`.
    """
    if len(body) > SPELLED_BYTES_MAX:
        raise TooManyFractions
    at, left = 0, FRACTIONS_MAX
    while at < len(body):
        begin = body.find(_QUOTE, at)
        end = len(body) if begin < 0 else begin
        while at < end:
            # Cut behind a comma, where no number goes on.
            cut = end if end - at <= STEP_BYTES else body.rfind(b",", at, at + STEP_BYTES) + 1 or end
            piece, found = _FRACTION.subn(_whole, body[at:cut], count=left + 1)
            left -= found
            if left < 0:
                raise TooManyFractions
            at = cut
            yield piece
        if begin >= 0:
            at = _after_text(body, begin)
            yield body[begin:at]


def _after_text(body: bytes, begin: int) -> int:
    """Return where the text ends whose first quote is at *begin*."""
    rest = _REST_OF_TEXT.match(body, begin + 1)
    return rest.end() if rest else len(body)


def _whole(match: "re.Match[bytes]") -> bytes:
    if len(match[0]) > DIGITS_MAX:
        return match[0]
    number = Decimal(match[0].decode())
    # The exponent is looked at first: 1e999999999 must not become an integer.
    if number.adjusted() > DIGITS_MAX or abs(number) > LARGEST or number != number.to_integral_value():
        return match[0]
    return b"%d" % number
