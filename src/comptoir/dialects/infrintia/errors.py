"""Infrintia's errors: ``{"detail": …}`` as the FastAPI application behind the reference answers.

The reference does not document errors, so the shape is inferred (docs/dialects/infrintia.md). A field's error is a list
of ``{"loc", "msg", "type"}``; facts that a program can act on are beside ``detail``.
"""

import math
import re
from collections.abc import Mapping

import msgspec

from comptoir.dispatch.errors import FramesOutOfOrder
from comptoir.gateway import status_of as usual_status_of
from comptoir.kit.errors import InvalidField, NotAuthenticated, Refusal
from comptoir.kit.http import MethodNotAllowed, NoSuchPath, Reply, Request, UnsupportedBody
from comptoir.kit.money import to_credits
from comptoir.ledger import InsufficientCredit

STATUSES: Mapping[type[Exception], int] = {
    UnsupportedBody: 422,
}
"""Where FastAPI differs from the gateway's table: a body that is not JSON is a validation error."""

HEADER_FIELDS = {"Idempotency-Key": "idempotency-key", "Last-Event-ID": "last-event-id"}

encode = msgspec.json.Encoder(decimal_format="number").encode
_INDEX = re.compile(r"\[(\d+|\.\.\.)\]")


def status_of(error: type[Exception]) -> int:
    """Return the status of an error class here."""
    return STATUSES.get(error) or usual_status_of(error)


def render_error(error: Exception, request: Request | None) -> Reply:
    """Render any error; one that is not a refusal reveals no internals."""
    status = status_of(type(error))
    body: dict[str, object] = {"detail": _detail(error, request)}
    if isinstance(error, FramesOutOfOrder):
        body["expected"] = error.expected
    elif isinstance(error, InsufficientCredit):
        body["credits_needed"] = to_credits(error.needed_uusd)
        body["credits_free"] = to_credits(error.free_uusd)
    elif isinstance(error, NoSuchPath) and error.nearest:
        body["nearest"] = error.nearest
    headers: tuple[tuple[bytes, bytes], ...] = ()
    retry_after_s = getattr(error, "retry_after_s", None)
    if isinstance(retry_after_s, float):
        headers = ((b"retry-after", b"%d" % max(1, math.ceil(retry_after_s))),)
    elif isinstance(error, NotAuthenticated):
        headers = ((b"www-authenticate", b"Bearer"),)
    return Reply(status, encode(body), headers=headers)


def _detail(error: Exception, request: Request | None) -> object:
    if isinstance(error, InvalidField):
        return [{"loc": _loc(error.field, request), "msg": error.reason, "type": _kind(error.reason)}]
    if isinstance(error, UnsupportedBody):
        return [{"loc": ["body"], "msg": error.message, "type": "json_invalid"}]
    if isinstance(error, NoSuchPath):
        return "Not Found"
    if isinstance(error, MethodNotAllowed):
        return "Method Not Allowed"
    return error.message if isinstance(error, Refusal) else "Internal Server Error"


def _loc(field: str, request: Request | None) -> list[str | int]:
    """Return the location of a field: ``models[1]`` of a body is ``["body", "models", 1]``."""
    if field in HEADER_FIELDS:
        return ["header", HEADER_FIELDS[field]]
    # Only requests without a body have their fields in the query.
    place = "query" if request is not None and request.method == "GET" else "body"
    if field in ("body", "query", ""):
        return [place]
    path: list[str | int] = [place]
    for part in field.split("."):
        path.append(part.partition("[")[0])
        path += [int(index) if index.isdigit() else index for index in _INDEX.findall(part)]
    return path


def _kind(reason: str) -> str:
    """Return FastAPI's error type."""
    if reason == "is required":
        return "missing"
    return "type_error" if reason.startswith("expected") and ", got " in reason else "value_error"
