"""Errors of our own dialects: ``{"error": {"code", "message"[, "field"]}}``, with the gateway's statuses."""

import msgspec

from comptoir.gateway.statuses import status_of
from comptoir.kit.errors import InvalidField, Refusal, TooManyRequests
from comptoir.kit.http import Reply, Request


class PlainError(msgspec.Struct):
    """What is wrong."""

    code: str
    """Name of the error, for programs."""
    message: str
    """Message for people."""
    field: str | msgspec.UnsetType = msgspec.UNSET
    """Field of the request that the error is about."""


class PlainBody(msgspec.Struct):
    """Body of every refusal."""

    error: PlainError


def render_plain_error(error: Exception, request: Request | None) -> Reply:
    """Render any error; one that is not a refusal reveals no internals."""
    status = status_of(type(error))
    message = error.message if isinstance(error, Refusal) else "internal error"
    facts = PlainError(type(error).__name__, message)
    if isinstance(error, InvalidField):
        facts.field = error.field
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, TooManyRequests):
        headers = ((b"retry-after", b"%d" % max(1, round(error.retry_after_s))),)
    return Reply(status, msgspec.json.encode(PlainBody(facts)), headers=headers)
