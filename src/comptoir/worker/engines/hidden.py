"""What buyers must not read in the words of an engine: where it is, and with which key it is asked."""

import re
from urllib.parse import urlsplit

from comptoir.kit.address import is_near
from comptoir.worker.engines.base import EngineError

_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://([^\s\"'<>\\(){}]+)", re.IGNORECASE)
_HOST_AND_PORT = re.compile(
    r"(?<![\w.:/-])(?:\[[0-9a-f:.]+\]|(?:\d{1,3}\.){3}\d{1,3}|localhost)(?::\d{1,5})?(?![\w.-])", re.IGNORECASE
)
_PATH = re.compile(r"(?<![\w/.…:])/(?:[\w.@+-]+/)+[\w.@+-]+")
_SOCKET = re.compile(r"(?<![\w/.…:])/(?:[\w.@+-]+/)*[\w.@+-]+\.sock\b")
_REST = re.compile(r"…/[\w./@+~%-]*[\w/]")
"""What follows on an address that is hidden already."""


class Hidden:
    """Takes the address and the key of one engine out of what it says."""

    def __init__(self, url: str, secret: str = "") -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        words = {url, secret, url.partition("://")[2] if parts.path else ""}
        if parts.port is not None:
            words.add(parts.netloc)
        # A bare name ("shout") is an ordinary word, which nobody can tell from the engine's own.
        if host == "localhost" or "." in host or ":" in host:
            words.add(host)
        # The longest first: a part of one would leave its rest standing.
        self._words = sorted(words - {""}, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return *text* without them."""
        for word in self._words:
            text = text.replace(word, "…")
        return text

    def body(self, body: bytes) -> bytes:
        """Return *body* without them."""
        for word in self._words:
            body = body.replace(word.encode(), "…".encode())
        return body

    def error(self, error: EngineError) -> EngineError:
        """Return *error* without them."""
        return _changed(error, self.text(error.message), self.body(error.body))


def without_addresses(error: EngineError) -> EngineError:
    """Return *error* without addresses in private networks, sockets, and, unless the buyer is at fault, paths of files.

    Whoever said them: an engine, a proxy before it, or Python. What is refused of the buyer's request may be a path.
    """
    whole = error.fault != "buyer"
    message = _without_near(error.message, paths=whole)
    text = error.body.decode(errors="surrogateescape")
    return _changed(error, message, _without_near(text, paths=whole).encode(errors="surrogateescape"))


def _without_near(text: str, *, paths: bool) -> str:
    text = _URL.sub(lambda found: "…" if is_near(found.group(1)) else found.group(0), text)
    text = _HOST_AND_PORT.sub(lambda found: "…" if is_near(found.group(0)) else found.group(0), text)
    return (_PATH if paths else _SOCKET).sub("…", _REST.sub("…", text))


def _changed(error: EngineError, message: str, body: bytes) -> EngineError:
    if message == error.message and body == error.body:
        return error
    return EngineError(
        error.code, message, fault=error.fault, status=error.status, body=body, retry_after_s=error.retry_after_s
    )
