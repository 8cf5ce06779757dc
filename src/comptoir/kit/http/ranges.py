"""Parts of what is served: Range, If-Range and If-None-Match of RFC 9110, for one range of bytes."""

import re

from comptoir.kit.http.errors import HttpRefusal
from comptoir.kit.http.request import Request

_RANGE = re.compile(rb"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.IGNORECASE)


class RangeNotSatisfiable(HttpRefusal):
    """The range that was asked for has no byte of what is there; *size* bytes are."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the range has no byte of what is there: {size} bytes")
        self.size = size
        self.headers = ((b"content-range", b"bytes */%d" % size),)


def range_asked(request: Request, *, size: int, etag: bytes) -> tuple[int, int] | None:
    """Return the range that *request* asks for, first byte and the one behind the last; None: the whole.

    Several ranges, another unit and what is no range are answered with the whole, as the RFC has it, and so is a range
    of something that has changed (If-Range), or may have: a date is no proof.

    Raises:
        RangeNotSatisfiable: it begins behind the end, or is empty.
    """
    given = request.headers.get(b"range", b"")
    found = _RANGE.fullmatch(given.strip())
    if found is None or request.headers.get(b"if-range", etag).strip() != etag:
        return None
    first, last = found[1], found[2]
    if not first and not last:
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= end:
        raise RangeNotSatisfiable(size)
    return start, end


def is_known(request: Request, etag: bytes) -> bool:
    """Tell whether the client has it already, by If-None-Match."""
    given = request.headers.get(b"if-none-match")
    if given is None:
        return False
    named = [one.strip().removeprefix(b"W/") for one in given.split(b",")]
    return etag in named or b"*" in named
