"""Errors of the shared paths at the root: ``{"detail": …}``, statuses as the gateway has them."""

import msgspec

from comptoir.gateway import status_of
from comptoir.kit.errors import Refusal, TooManyRequests, Unavailable
from comptoir.kit.http import Reply, Request

__all__ = ["Detail", "render_error", "status_of"]


class Detail(msgspec.Struct):
    """What is wrong, for people."""

    detail: str


def render_error(error: Exception, request: Request | None) -> Reply:
    """Render any error; one that is not a refusal reveals no internals."""
    message = error.message if isinstance(error, Refusal) else "internal error"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, TooManyRequests | Unavailable):
        headers = ((b"retry-after", b"%d" % max(1, round(error.retry_after_s))),)
    return Reply(status_of(type(error)), msgspec.json.encode(Detail(message)), headers=headers)
