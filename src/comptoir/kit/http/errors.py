"""Errors that HTTP itself raises, before any room is asked."""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable
from typing import TypeVar

import msgspec

from comptoir.kit.errors import InvalidField, Refusal
from comptoir.kit.upgrade import PASS_UPGRADE_ON

Header = tuple[bytes, bytes]

SHOWN_MAX = 200
"""Characters of what a client sent that are repeated in a refusal."""


def shown(text: str) -> str:
    """Return as much of *text*, which a client sent, as a refusal repeats."""
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "…"


class HttpRefusal(Refusal):
    """A refusal whose answer has headers of its own, in every dialect."""

    headers: tuple[Header, ...] = ()


class OwnedByPeer(Refusal):
    """Only another server can answer this request, so it is forwarded there; clients never see this error."""

    def __init__(self, server: bytes) -> None:
        super().__init__("only another server can answer this")
        self.server = server


class NoSuchPath(Refusal):
    """Nothing is served at this path; *nearest* names the one that comes closest."""

    def __init__(self, message: str, *, nearest: str = "") -> None:
        super().__init__(f"{message}; the nearest path that is served is {nearest}" if nearest else message)
        self.nearest = nearest


class MethodNotAllowed(HttpRefusal):
    """The path exists with other methods; *allowed* names them."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(f"method not allowed; this path answers {', '.join(allowed)}")
        self.allowed = allowed
        self.headers = ((b"allow", ", ".join(allowed).encode()),)


class UpgradeRequired(HttpRefusal):
    """The path is a WebSocket, and the request did not ask for one."""

    headers = ((b"upgrade", b"websocket"), (b"connection", b"upgrade"))

    def __init__(self) -> None:
        super().__init__(
            f"this path is a WebSocket, and the request that came here did not ask for one; {PASS_UPGRADE_ON}"
        )


class PreconditionFailed(HttpRefusal):
    """The request asks for terms on which it is not served; the headers of the answer name those that are."""

    def __init__(self, message: str, *headers: Header) -> None:
        super().__init__(message)
        self.headers = headers


class UnsupportedMediaType(HttpRefusal):
    """The body is not of a type that is taken here; *taken* is."""

    def __init__(self, taken: str) -> None:
        super().__init__(f"the body needs 'Content-Type: {taken}' here")
        self.taken = taken
        self.headers = ((b"accept", taken.encode()),)


class HeadTooLarge(Refusal):
    """The request's head is larger than the setting ``head_bytes_max``, or has too many lines."""

    def __init__(self, limit_bytes: int, lines_max: int) -> None:
        super().__init__(
            f"the head of the request is larger than {limit_bytes} bytes, or has more than {lines_max} lines"
        )
        self.limit_bytes = limit_bytes
        self.lines_max = lines_max


class TooSlow(Refusal):
    """The request did not come in time (settings ``head_s``, ``body_bytes_per_s_min``)."""


class PayloadTooLarge(Refusal):
    """The body is larger than the setting ``body_bytes_max``; without a key, ``body_bytes_without_key_max``."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is larger than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class UnsupportedBody(Refusal):
    """The body is not JSON."""


T = TypeVar("T")


def read_json(decode: Callable[[bytes], T], body: bytes) -> T:
    """Decode *body*.

    Raises:
        UnsupportedBody: it is not JSON in UTF-8, or nested too deeply.
        InvalidField: a field is missing, of the wrong type or out of bounds.
    """
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise field_error(error) from error
    except msgspec.DecodeError as error:
        if body.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or 0 in body[:4]:
            raise UnsupportedBody("the body is in UTF-16 or UTF-32; send JSON in UTF-8") from error
        raise field_error(error) from error
    except UnicodeDecodeError as error:
        raise UnsupportedBody(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
    except RecursionError as error:
        raise UnsupportedBody("the body is nested too deeply") from error


_AT = re.compile(r"^(?P<reason>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(?P<name>[^`]+)`")
_UNKNOWN = re.compile(r"unknown field `(?P<name>[^`]+)`")


def field_error(error: msgspec.DecodeError) -> Refusal:
    """Turn msgspec's message into a refusal that names the field and the limit."""
    if not isinstance(error, msgspec.ValidationError):
        return UnsupportedBody(f"the body is not valid JSON: {error}")
    match = _AT.match(str(error))
    assert match is not None
    reason = match["reason"]
    path = (match["path"] or "$").removeprefix("$").removeprefix(".")
    for pattern, words in ((_MISSING, "is required"), (_UNKNOWN, "is not a field of this request")):
        found = pattern.search(reason)
        if found:
            return InvalidField(f"{path}.{found['name']}" if path else found["name"], words)
    return InvalidField(path or "body", reason[:1].lower() + reason[1:])
