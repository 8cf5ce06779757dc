"""JSON as engines write it: with halves of surrogate pairs, bytes that are no UTF-8, NaN and Infinity.

Python's own `json` writes such, and llama.cpp's and others' streams cut characters in two. Strict parsers, ours among
them, refuse the whole of it.
"""

import json
import re
from typing import Any

import msgspec

DIGITS_MAX = 308
"""Longest integer that is read; a longer one is beyond a float, so null."""

MINUS_INFINITY = -9999.0
"""What OpenAI sends for the logarithm of a probability of nothing, and so does vLLM."""

_decode = msgspec.json.Decoder().decode
_half = re.compile("[\ud800-\udfff]")
_pairs_and_halves = re.compile("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]")


class NotJson(ValueError):
    """It can't be read by any means; the message says why."""


def loads(data: bytes) -> Any:
    """Decode *data*; what no JSON has is null, -Infinity is `MINUS_INFINITY`, halves of pairs stay in the texts.

    Raises:
        NotJson: it is no JSON at all.
    """
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # Read again, loosely.
    try:
        return json.loads(data.decode("utf-8-sig", "replace"), parse_constant=_constant, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from error


def whole_characters(text: str) -> str:
    """Return *text* with its pairs joined, and U+FFFD for each half that is left."""
    return _pairs_and_halves.sub(_joined, text) if _half.search(text) else text


def cleaned(value: Any) -> Any:
    """Return decoded JSON with whole characters in all its texts and names."""
    if isinstance(value, str):
        return whole_characters(value)
    if isinstance(value, list):
        return [cleaned(one) for one in value]
    if isinstance(value, dict):
        return {whole_characters(name): cleaned(one) for name, one in value.items()}
    return value


def _constant(name: str) -> float | None:
    return MINUS_INFINITY if name == "-Infinity" else None


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= DIGITS_MAX else None


def _joined(found: re.Match[str]) -> str:
    return found[0].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
