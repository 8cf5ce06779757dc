"""Declarations: what an endpoint is, and the dialect it belongs to."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from comptoir.kit.http.request import Reply, Request

Handler = Callable[[Any, Request], Awaitable[Any]]


class Access(StrEnum):
    """Who may call."""

    PUBLIC = "public"
    """Anybody; a credential is not checked."""
    OPTIONAL = "optional"
    """Anybody; a credential, if sent, must be valid and is used."""
    BUYER = "buyer"
    """Any user's key (an operator's too)."""
    HOST = "host"
    """A host's key."""
    OPERATOR = "operator"
    """A key of a user with the operator role."""
    ANY = "any"
    """Any valid key, a user's or a host's."""


@dataclass(frozen=True, eq=False)
class Endpoint:
    """One method and path."""

    method: str
    path: str
    """With ``{name}`` (one segment) or ``{name:path}`` (rest of the path)."""
    handler: Handler
    access: Access
    summary: str
    """One sentence for the reference."""
    request: Any = None
    """msgspec type of the JSON body; None: no body is read."""
    decodes: bool = True
    """False: the handler reads `Request.raw` itself, and *request* only documents it."""
    query: Any = None
    """msgspec struct of the query string; None: ignored."""
    response: Any = None
    """msgspec type of the JSON answer; None with *media* for anything else, or with 204."""
    status: int = 200
    errors: tuple[type[Exception], ...] = ()
    """Domain errors that this endpoint may answer with, beside those of every endpoint."""
    media: str = "application/json"
    """Media type of the answer."""
    media_also: tuple[str, ...] = ()
    """Other media types that a client may request (Accept)."""
    also: tuple[int, ...] = ()
    """Other success statuses (204 of an empty poll)."""
    more: tuple[tuple[int, str], ...] = ()
    """Statuses without an error class of ours (an engine's own errors), each with its reason."""
    idempotent: bool = False
    """Takes ``Idempotency-Key``."""
    example: Any = None
    """Example body for the reference."""
    answer_example: Any = None
    """Example answer for the reference."""
    description: str = ""
    reads: bool = False
    """Whether the handler only reads and may take long: it is cancelled when its client hangs up."""
    raw: bool = False
    """Whether the handler needs `Request.raw` (the body as sent) beside the decoded one."""
    streams: tuple[str, ...] = ()
    """Media types of a body that the handler reads itself as it comes (`body.BodyStream`); empty: it reads none. Only
    with a key: such a body may be of any type."""
    options: tuple[tuple[bytes, bytes], ...] = ()
    """Headers that OPTIONS of its path is answered with, beside Allow."""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert not self.streams or self.access in (Access.BUYER, Access.HOST, Access.OPERATOR, Access.ANY)


@dataclass(frozen=True, eq=False)
class Socket:
    """One WebSocket path."""

    path: str
    handler: Callable[[Any, Request, Any], Awaitable[None]]
    """Called with (core, request, starlette.websockets.WebSocket) before the handshake is accepted."""
    access: Access
    summary: str


@dataclass(frozen=True, eq=False)
class Dialect:
    """One published HTTP API: its endpoints and the shape of its errors."""

    name: str
    title: str
    prefix: str
    """Path prefix of its own, for example ``/infrintia``, beside the published paths at the root. Empty for the only
    dialect without a prefix."""
    endpoints: tuple[Endpoint, ...]
    render_error: Callable[[Exception, Request | None], Reply]
    """Total over `Refusal`; also called for unexpected errors (500)."""
    sockets: tuple[Socket, ...] = ()
    description: str = ""
    headers: Callable[[Request], list[tuple[bytes, bytes]]] | None = None
    """Adds headers to every answer (request id, rate limits)."""
    owns: tuple[str, ...] = ()
    """Path prefixes at the root whose 404 and 405 answer in this dialect's shape."""
    instead: Mapping[str, str] = field(default_factory=dict)
    """Paths that clients of this API or its likes ask for and nobody serves, each with the path that comes closest."""
    at_root: bool = True
    """False: served only under *prefix*."""
    error_statuses: Callable[[type[Exception]], int] = field(default=lambda _: 500)
    """Status of an error class, for the reference and the tests."""
    error_body: Any = None
    """msgspec type of what *render_error* answers, for the reference."""
    own_rate: Callable[[Any], int] | None = None
    """Requests per minute from one address without a key to each path, from the settings; None: the general limit."""
    large_without_key: Callable[[Any], bool] = field(default=lambda _: False)
    """Whether callers without a key may, by the settings, send bodies of ``body_bytes_max``, not
    ``body_bytes_without_key_max``."""
    unlimited: frozenset[str] = frozenset()
    """Paths that *own_rate* does not count; the general limit applies to them."""
