"""Errors of the Infernet API: ``{"error": …[, "params": {…}]}``, always a JSON object, because its client parses it.

Refusals of admission, the node's Guardian, have status 405; bodies that can't be parsed 400, where the node has 500.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from comptoir.chain import ChainExtraMissing, ChainRefusal, OldSubscription
from comptoir.containers import ContainerRefused
from comptoir.dialects.infernet.wire import Error
from comptoir.dispatch.errors import NoHostPossible, UnknownModel
from comptoir.gateway import status_of as desk_status_of
from comptoir.kit.errors import InvalidField, NotAllowed, Refusal, TooManyRequests, Unavailable
from comptoir.kit.http import Reply, Request, UnsupportedBody
from comptoir.ledger import InsufficientCredit
from comptoir.moderation import ModelQuarantined


class NotUnderstood(UnsupportedBody):
    """The request is not one of this API; *params* say where."""

    def __init__(self, message: str, params: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.params = params or {}


class NotLocal(NotAllowed):
    """Only programs on this machine may do this."""

    def __init__(self) -> None:
        super().__init__("Unauthorized")


STATUSES: Mapping[type[Exception], int] = {
    InvalidField: 400,
    ChainRefusal: 400,
    ChainExtraMissing: 503,
    ContainerRefused: 405,
    UnknownModel: 405,
    ModelQuarantined: 405,
    NoHostPossible: 405,
}
"""Where the published node differs from the gateway."""


def status_of(error: type[Exception]) -> int:
    """Return the status of an error class."""
    for parent in error.__mro__:
        if parent in STATUSES:
            return STATUSES[parent]
    return desk_status_of(error)


def body_of(error: Refusal) -> Error:
    """Return the body for a refusal."""
    if isinstance(error, ContainerRefused | NotUnderstood):
        return Error(error.message, error.params) if error.params else Error(error.message)
    if isinstance(error, OldSubscription):
        return Error(error.message, {"replaced": error.replaced})
    if isinstance(error, InvalidField):
        return Error(error.message, {"field": error.field})
    if isinstance(error, UnknownModel):
        return Error("Container not supported", {"container": error.model})
    if isinstance(error, InsufficientCredit):
        return Error(error.message, {"needed_uusd": error.needed_uusd, "free_uusd": error.free_uusd})
    return Error(error.message)


def render_error(error: Exception, request: Request | None) -> Reply:
    """Render any error; one that is not a refusal reveals no internals."""
    body = body_of(error) if isinstance(error, Refusal) else Error("Internal server error")
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, TooManyRequests | Unavailable):
        headers = ((b"retry-after", b"%d" % max(1, round(error.retry_after_s))),)
    return Reply(status_of(type(error)), msgspec.json.encode(body), headers=headers)
