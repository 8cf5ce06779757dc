"""What buyers must not read in the words of an engine: where it is, and with which key it is asked."""

from urllib.parse import urlsplit

from comptoir.kit.inside import body_without_inside, without_inside
from comptoir.worker.engines.base import EngineError


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
    paths = error.fault != "buyer"
    message = without_inside(error.message, paths=paths)
    return _changed(error, message, body_without_inside(error.body, paths=paths))


def _changed(error: EngineError, message: str, body: bytes) -> EngineError:
    if message == error.message and body == error.body:
        return error
    return EngineError(
        error.code, message, fault=error.fault, status=error.status, body=body, retry_after_s=error.retry_after_s
    )
