"""What strangers must not read in somebody else's error: addresses in a private network, sockets, names of files."""

import re

from comptoir.kit.address import is_near

# A scheme is short: without that bound, a text of dots would take quadratic time.
_URL = re.compile(r"\b[a-z][a-z0-9+.-]{0,15}://([^\s\"'<>\\(){},;]+)", re.IGNORECASE)
_HOST_AND_PORT = re.compile(
    r"(?<![\w.:/-])(?:\[[0-9a-f:.]{2,45}\]|(?:\d{1,3}\.){3}\d{1,3}|localhost)(?::\d{1,5})?(?![\w.-])", re.IGNORECASE
)
_PATH = re.compile(r"(?<![\w/.…:])/(?:[\w.@+-]+/)+[\w.@+-]+")
_SOCKET = re.compile(r"(?<![\w/.…:])/(?:[\w.@+-]+/)*[\w.@+-]+\.sock\b")
_REST = re.compile(r"…/[\w./@+~%-]*[\w/]")
"""What follows on an address that is left out already."""


def without_inside(text: str, *, paths: bool) -> str:
    """Return *text* with "…" for each address in a private network, as far as it shows, and each socket.

    Args:
        paths: also for each path of two names or more.
    """
    text = _URL.sub(lambda found: "…" if is_near(found.group(1)) else found.group(0), text)
    text = _HOST_AND_PORT.sub(lambda found: "…" if is_near(found.group(0)) else found.group(0), text)
    return (_PATH if paths else _SOCKET).sub("…", _REST.sub("…", text))


def body_without_inside(body: bytes, *, paths: bool) -> bytes:
    """Return *body*, JSON or any other text, as `without_inside` does; bytes that are no text stay."""
    text = body.decode(errors="surrogateescape")
    return without_inside(text, paths=paths).encode(errors="surrogateescape")
