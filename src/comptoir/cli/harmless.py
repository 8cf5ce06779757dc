"""What strangers say, as a terminal may be given it."""

import re
from typing import IO, Any

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """Return *text* without control characters but newline and tab: a terminal would obey them."""
    return _CONTROL.sub("", text)


def as_read(text: str, stream: IO[Any]) -> str:
    """Return *text* as *stream* is given it: harmless where a person watches, every character of it elsewhere."""
    return harmless(text) if stream.isatty() else text
