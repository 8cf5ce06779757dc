"""How much output there is in frames, in bytes: what bounds the units that a host may be paid for.

Padding costs its sender nothing and shows nothing, so it counts as much as what stands between it, and alone nothing.
Additive over frames: it does not matter how an answer is cut into frames, nor who counts, the worker, the coordinator
or whoever has the frames and a receipt.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from comptoir.link import Frame

UNITS_OVER_BYTES = 32
"""Units that a host may count beyond the bytes it delivered: tokens that end an answer, or frame a tool call, are
counted by engines and not shown."""

_BLANK_BYTES = bytes(range(0x21)) + b"\x7f"
"""Whitespace and control characters of ASCII."""

_blank = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]+"
)
"""The same of Unicode, and characters that show nothing."""

_fields = msgspec.json.Decoder(dict[str, Any]).decode
_NO_OUTPUT = frozenset(("finish_reason", "index"))


Size = tuple[int, int]
"""Bytes of output in UTF-8: those that show something, and those of padding."""

NO_OUTPUT: Size = (0, 0)


def bounding_bytes(size: Size) -> int:
    """Return the bytes that bound what is paid: of the padding at most as much as shows."""
    solid, blank = size
    return solid + (blank if blank < solid else solid)


def text_size(text: str) -> Size:
    """Return the size of *text*.

    Raises:
        UnicodeEncodeError: it has half a surrogate pair, which no frame can have.
    """
    data = text.encode()
    size = len(data)
    if size == len(text):
        solid = len(data.translate(None, _BLANK_BYTES))
    else:
        solid = len(_blank.sub("", text).encode())
    return solid, size - solid


def joined(frames: Sequence[Frame], *, plain: bool = False) -> tuple[str, list[bytes]]:
    """Return the text of all *frames*, and their extras that are not empty; *plain*: there are none."""
    if len(frames) == 1:
        frame = frames[0]
        return frame.text, [frame.extra] if frame.extra else []
    text = "".join([frame.text for frame in frames])
    return text, [] if plain else [frame.extra for frame in frames if frame.extra]


def value_size(values: Iterable[Any]) -> Size:
    """Return the size of what decoded JSON says: its texts and numbers, without names, quotes and brackets."""
    solid = blank = 0
    left = list(values)
    while left:
        one = left.pop()
        if type(one) is str:
            shown, padding = text_size(one)
            solid, blank = solid + shown, blank + padding
        elif type(one) is dict:
            left += one.values()
        elif type(one) is list:
            left += one
        elif one is not None:
            solid += len(msgspec.json.encode(one))
    return solid, blank


def extra_size(extra: bytes) -> Size:
    """Return the size of all that stands in *extra*, but for the finish reason and the number of the choice."""
    try:
        said = _fields(extra)
        return value_size([value for name, value in said.items() if name not in _NO_OUTPUT])
    except (ValueError, RecursionError):
        return NO_OUTPUT  # Stored before it was checked when it came (`Kind.check_extra`).
