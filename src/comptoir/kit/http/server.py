"""The ASGI application over all dialects: exact paths by dict, the rest by pattern, errors in the dialect's shape."""

import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from functools import cache
from itertools import count
from typing import Any

import msgspec
from starlette.websockets import WebSocket

from comptoir.kit.errors import InvalidField, Refusal, Unavailable
from comptoir.kit.http.body import read_body
from comptoir.kit.http.bounds import AGAIN_AFTER_S, PIECE_BYTES
from comptoir.kit.http.browsers import BrowserPolicy, refuse_repeated, require_json
from comptoir.kit.http.cork import answer, cut_short, until_closed
from comptoir.kit.http.endpoint import Access, Dialect, Endpoint, Socket
from comptoir.kit.http.errors import (
    HttpRefusal,
    MethodNotAllowed,
    NoSuchPath,
    OwnedByPeer,
    UpgradeRequired,
    field_error,
    shown,
)
from comptoir.kit.http.paths import Paths, plain
from comptoir.kit.http.request import CONNECTION, Receive, Reply, Request, Scope, Send, Stream, while_connected
from comptoir.kit.vitals import RequestCounts

log = logging.getLogger(__name__)
access_log = logging.getLogger("comptoir.access")

encode_json = msgspec.json.Encoder(decimal_format="number").encode

STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
"""Headers that keep proxies from buffering a stream."""

FORWARDED = "comptoir.forwarded"
"""Set in the scope of a request that another server forwarded: it must not be forwarded again."""

EXPOSED_HEADERS = (
    b"x-request-id, retry-after, retry-after-ms, x-should-retry, x-ratelimit-limit-requests, "
    b"x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-comptoir-job, x-comptoir-receipt, x-comptoir-cost-uusd, "
    b"etag, content-range, accept-ranges, content-disposition, location, tus-resumable, upload-offset, upload-length, "
    b"upload-expires, x-comptoir-file"
)
"""Headers that scripts of an allowed origin may read."""

Gate = Callable[[Request, Access, Dialect], "Awaitable[None] | None"]
"""Authenticates and rate-limits: sets `Request.principal` and `Request.rate` or raises; returns a coroutine when it
needs a lookup."""


Forward = Callable[[Request, bytes], Awaitable[Reply]]
"""Lets the server with this id answer a request."""


OF_ANYBODY = (
    "Invalid HTTP request received.", "Unsupported upgrade request.", "No supported WebSocket library", '%s - "WebSocket',
    "connection open", "connection rejected", "connection closed", "HTTP response sent",
)  # fmt: skip
"""Beginnings of lines that uvicorn and websockets write about each request that is none, and each WebSocket."""


class StreamBroken(RuntimeError):
    """Raised through to the server so that it aborts the connection: a broken stream must never look complete."""


def is_news(record: logging.LogRecord) -> bool:
    """Tell whether a line of the server's log says something new.

    A cut stream was noted here, with its cause; and what anybody can send without a key, as often as he likes, makes no
    line.
    """
    if record.levelno < logging.ERROR and str(record.msg).startswith(OF_ANYBODY):
        return False
    return not (record.exc_info and isinstance(record.exc_info[1], StreamBroken))


class StreamAborted(Exception):
    """Raised by a stream's source that has to stop early: the connection is aborted, and not logged as a bug."""


CLOSE = (b"connection", b"close")


class _Route:
    __slots__ = (
        "access",
        "counts",
        "decode",
        "dialect",
        "endpoint",
        "handler",
        "headers",
        "json_header",
        "needs_body",
        "repeated",
        "status",
    )

    def __init__(self, endpoint: Endpoint, dialect: Dialect) -> None:
        self.endpoint = endpoint
        self.dialect = dialect
        self.handler = while_connected(endpoint.handler) if endpoint.reads else endpoint.handler
        self.access = endpoint.access
        self.needs_body = endpoint.request is not None or endpoint.raw
        decodes = endpoint.request is not None and endpoint.decodes
        self.decode = msgspec.json.Decoder(endpoint.request).decode if decodes else None
        self.headers = dialect.headers
        self.repeated = _repeated(endpoint.query) if endpoint.query is not None else frozenset()
        """Query parameters that may be given several times."""
        self.status = endpoint.status
        self.json_header = (b"content-type", endpoint.media.encode())
        self.counts = RequestCounts(dialect.name, endpoint.method, endpoint.path)


class HttpServer:
    """Routes and serves; *core* is passed to every handler as its first argument."""

    def __init__(
        self,
        core: Any,
        dialects: Sequence[Dialect],
        *,
        gate: Gate,
        body_bytes_max: int,
        browsers: BrowserPolicy | None = None,
        without_key_bytes_max: Callable[[Dialect], int] | None = None,
        forward: Forward | None = None,
        served: list[RequestCounts] | None = None,
    ) -> None:
        """Route to *dialects*.

        Args:
            without_key_bytes_max: the largest body of a request to this dialect that has no key; None:
                *body_bytes_max*.
            browsers: what pages may request; None: foreign pages nothing.
            forward: lets another server answer a request that raised `OwnedByPeer`; None: there are no others.
            served: the counts of every endpoint are added here, for metrics.
        """
        self._core = core
        self._gate = gate
        self._body_bytes_max = body_bytes_max
        self._browsers = browsers or BrowserPolicy()
        self._without_key_max = without_key_bytes_max or (lambda _: body_bytes_max)
        self._paths: Paths[_Route] = Paths()
        self._exact = self._paths.exact
        self._sockets: dict[str, tuple[Socket, Dialect]] = {}
        self._dialects = tuple(dialects)
        self._ids = count(1)
        self._id_head = "req_" + os.urandom(6).hex()
        self._forward = forward or _nobody
        self._served = served if served is not None else []
        self.closing = False
        """Set when shutdown begins: each connection closes after its answer, so clients reconnect via the balancer."""
        for dialect in dialects:
            # The root's own dialect has no prefix; it is mounted once.
            for prefix in {"": None, dialect.prefix: None} if dialect.at_root else (dialect.prefix,):
                self._mount(dialect, prefix)

    def _mount(self, dialect: Dialect, prefix: str) -> None:
        for endpoint in dialect.endpoints:
            route = _Route(endpoint, dialect)
            self._served.append(route.counts)
            path = (prefix + endpoint.path) if endpoint.path != "/" or not prefix else prefix
            # An earlier dialect may own this path at the root (docs/dialects: collisions).
            self._paths.add(endpoint.method, path, route, prefix=prefix if dialect.at_root else "")
        for socket in dialect.sockets:
            path = prefix + socket.path
            self._sockets.setdefault(path, (socket, dialect))
            self._paths.mention("GET", tuple(path[1:].split("/")), prefix=prefix)
        for asked, served in dialect.instead.items():
            self._paths.instead(prefix + asked, prefix + served)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Return what serves a request; no coroutine around it, which would be resumed with it each time."""
        kind = scope["type"]
        if kind == "http":
            method, path = scope["method"], scope["path"]
            params: dict[str, str] = {}
            route = self._exact.get((method, path))
            if route is None:
                found = self._paths.find(method, path)
                if found is None:
                    return self._refuse(scope, receive, send)
                # From here on it is the path as published, for limits, logs and repeats.
                route, params, scope["path"] = found
            return self._serve(route, Request(scope, receive, params), send)
        if kind == "websocket":
            return self._socket(scope, receive, send)
        raise NotImplementedError("run with lifespan=off; the composition root opens and closes everything")

    # -- finding -------------------------------------------------------------------------------------------------

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        request = Request(scope, receive, {})
        request.id = self._next_id()
        allowed = self._paths.allowed(path)
        is_socket = plain(path) in self._sockets
        if is_socket:
            allowed.add("GET")
        if method == "HEAD" and "GET" in allowed:
            # A copy: the server below reads its own scope to know that no body follows.
            return await self({**scope, "method": "GET"}, receive, _without_body(send))
        dialect = self._owner(plain(path))
        try:
            self._look(request)
        except Refusal as refusal:
            return await self._send(_rendered(dialect, refusal, request), request, dialect, send)
        if method == "OPTIONS" and allowed:
            allow = MethodNotAllowed(tuple(sorted(allowed))).headers
            for found in filter(None, [self._paths.find(each, path) for each in sorted(allowed)]):
                allow += found[0].endpoint.options
            return await self._send(Reply(204, headers=allow), request, dialect, send)
        error: Refusal
        if method == "GET" and is_socket:
            error = UpgradeRequired()
        elif allowed:
            error = MethodNotAllowed(tuple(sorted(allowed)))
        else:
            error = self._nothing_at(method, path)
        await self._send(_rendered(dialect, error, request), request, dialect, send)

    def _nothing_at(self, method: str, path: str) -> NoSuchPath:
        return NoSuchPath(f"nothing is served at {shown(path)}", nearest=self._paths.nearest(method, path))

    def _owner(self, path: str) -> Dialect:
        """Return the dialect that shapes errors of a path: the one with the longest owned prefix, else the first."""
        best, best_length = self._dialects[0], -1
        for dialect in self._dialects:
            for prefix in (dialect.prefix, *dialect.owns):
                if prefix and len(prefix) > best_length and (path == prefix or path.startswith(prefix + "/")):
                    best, best_length = dialect, len(prefix)
        return best

    def _look(self, request: Request) -> None:
        """Determine who sent a request, and refuse foreign pages; forwarded requests were checked by their sender."""
        scope = request.scope
        if len(request.headers) < len(scope["headers"]):
            refuse_repeated(scope["headers"])
        if FORWARDED not in scope:
            self._browsers.judge(request)

    # -- serving -------------------------------------------------------------------------------------------------

    async def _serve(self, route: _Route, request: Request, send: Send) -> None:
        request.id = self._next_id()
        status = 500
        try:
            self._look(request)
            waits = self._gate(request, route.access, route.dialect)
            if waits is not None:
                await waits
            if route.needs_body:
                require_json(request)
                limit = self._body_bytes_max
                if request.principal is None:
                    limit = min(limit, self._without_key_max(route.dialect))
                await read_body(request, route.decode, limit)
            if route.endpoint.query is not None:
                request.query = _decode_query(route.endpoint.query, request, route.repeated)
            result = await route.handler(self._core, request)
            if type(result) is Stream:
                status = result.status
                await self._send_stream(result, request, route.dialect, send)
            elif type(result) is Reply:
                status = result.status
                await self._send(result, request, route.dialect, send)
            else:
                status = route.status
                body = encode_json(result) if status != 204 else b""
                await self._send_plain(
                    request, route.dialect, send, status=status, body=body, content_type=route.json_header
                )
        except Refusal as refusal:
            reply = await self._refused(route, request, refusal)
            status = reply.status
            await self._send(reply, request, route.dialect, send)
        except StreamBroken:
            cut_short(send)
            raise
        except Exception as error:  # The server's edge: a bug must answer 500 in the dialect's shape and be logged.
            log.exception("%s %s failed (%s)", request.method, request.path, request.id)
            await self._send(route.dialect.render_error(error, request), request, route.dialect, send)
        finally:
            request.answered()
            counts = route.counts
            counts.by_status[status] = counts.by_status.get(status, 0) + 1
            took_s = time.perf_counter() - request.started_s
            counts.seconds += took_s
            if access_log.isEnabledFor(logging.DEBUG):
                fields = {
                    "status": status,
                    "ms": round(took_s * 1000, 2),
                    "peer": request.peer,
                    "request_id": request.id,
                }
                access_log.debug("%s %s", request.method, request.path, extra=fields)

    async def _refused(self, route: _Route, request: Request, refusal: Refusal) -> Reply:
        if isinstance(refusal, OwnedByPeer):
            try:
                if request.scope.get(FORWARDED):
                    raise Unavailable("what was asked about has just moved on; try again")
                return await self._forward(request, refusal.server)
            except Refusal as failed:
                refusal = failed
        return _rendered(route.dialect, refusal, request)

    def _next_id(self) -> str:
        return f"{self._id_head}{next(self._ids):x}"

    def refusal(self, path: str, error: Refusal) -> Reply:
        """Return what the owner of *path* says of *error*, which was found before there was a request."""
        path = plain(path)
        routes = [self._exact[method, path] for method in self._paths.allowed(path) if (method, path) in self._exact]
        return (routes[0].dialect if routes else self._owner(path)).render_error(error, None)

    async def _send_plain(
        self,
        request: Request,
        dialect: Dialect,
        send: Send,
        *,
        status: int,
        body: bytes,
        content_type: tuple[bytes, bytes],
    ) -> None:
        headers = [content_type, (b"content-length", b"%d" % len(body))] if status != 204 else []
        if dialect.headers is not None:
            headers += dialect.headers(request)
        if b"origin" in request.headers:
            headers += self._cors(request)
        if self.closing:
            headers.append(CLOSE)
        if len(body) > PIECE_BYTES:
            await self._send_large(Reply(status, body), request, dialect, send, headers=headers)
        elif not answer(send, status, headers, body):
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    async def _send(self, reply: Reply, request: Request, dialect: Dialect, send: Send) -> None:
        headers = [
            (b"content-type", reply.media.encode()),
            (b"content-length", b"%d" % len(reply.body)),
            *reply.headers,
        ]
        if reply.status in (204, 304):
            headers = list(reply.headers)
        if dialect.headers is not None:
            headers += dialect.headers(request)
        if b"origin" in request.headers:
            headers += self._cors(request)
        if self.closing:
            headers.append(CLOSE)
        if len(reply.body) > PIECE_BYTES or reply.release is not None:
            await self._send_large(reply, request, dialect, send, headers=headers)
        elif reply.status in (204, 304) or not answer(send, reply.status, headers, reply.body):
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            await send({"type": "http.response.body", "body": reply.body})

    async def _send_large(
        self, reply: Reply, request: Request, dialect: Dialect, send: Send, *, headers: list[tuple[bytes, bytes]]
    ) -> None:  # fmt: skip
        """Send a large answer as its client reads it; what is read again at no cost is refused where too much waits for
        readers."""
        connection, body = request.scope.get(CONNECTION), reply.body
        counted, release = 0, reply.release or _nothing
        try:
            if connection is not None and reply.release is None and not request.holding:
                counted = connection.count_answer(len(body))
                if not counted and request.method == "GET":
                    full = Unavailable("too much waits to be read here; try again", retry_after_s=AGAIN_AFTER_S)
                    return await self._send(dialect.render_error(full, request), request, dialect, send)
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            if connection is None or len(body) <= PIECE_BYTES:
                return await send({"type": "http.response.body", "body": body})
            for start in range(0, len(body), PIECE_BYTES):
                more = start + PIECE_BYTES < len(body)
                if (turn := connection.turns.spend(connection.key, PIECE_BYTES)) is not None:
                    await turn
                await send({"type": "http.response.body", "body": body[start : start + PIECE_BYTES], "more_body": more})
        finally:
            release()
            if connection is not None and counted:
                connection.uncount_answer(counted)

    async def _send_stream(self, stream: Stream, request: Request, dialect: Dialect, send: Send) -> None:
        sized = STREAM_HEADERS if stream.length is None else [(b"content-length", b"%d" % stream.length)]
        headers = [(b"content-type", stream.media.encode()), *sized, *stream.headers]
        if dialect.headers is not None:
            headers += dialect.headers(request)
        if b"origin" in request.headers:
            headers += self._cors(request)
        if self.closing:
            headers.append(CLOSE)
        send = until_closed(send)
        await send({"type": "http.response.start", "status": stream.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        connection = request.scope.get(CONNECTION)
        if connection is not None:
            request.body, request.raw = None, b""
            connection.release_body()
        try:
            async for piece in stream.pieces:
                for start in range(0, len(piece), PIECE_BYTES) if len(piece) > PIECE_BYTES else (0,):
                    part = piece[start : start + PIECE_BYTES]
                    if connection is not None:
                        turn = connection.turns.spend(connection.key, len(part))
                        if turn is not None:
                            await turn
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                if connection is not None and connection.gone:
                    # Nothing more is made for nobody.
                    request.hung_up()
                    await _closed(stream.pieces)
                    return
        except StreamAborted as aborted:
            log.info("stream of %s is cut: %s (%s)", request.path, aborted, request.id)
            raise StreamBroken from None
        except Exception:  # The headers are out: the only honest end is an aborted connection, and a log line.
            log.exception("stream of %s broke (%s)", request.path, request.id)
            raise StreamBroken from None
        await send({"type": "http.response.body", "body": b""})

    def _cors(self, request: Request) -> list[tuple[bytes, bytes]]:
        origin = request.headers[b"origin"]
        if not self._browsers.allows(origin):
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            (
                b"access-control-allow-headers",
                (request.header(b"access-control-request-headers") or "*").encode("latin-1"),
            ),
            (b"access-control-expose-headers", EXPOSED_HEADERS),
            (b"access-control-max-age", b"86400"),
            (b"vary", b"origin"),
        ]

    # -- sockets -------------------------------------------------------------------------------------------------

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = plain(scope["path"])
        found = self._sockets.get(path)
        request = Request(scope, receive, {})
        if found is None:
            dialect = self._owner(path)
            await _deny(scope, send, _rendered(dialect, self._nothing_at("GET", path), request))
            return
        scope["path"] = path
        socket = WebSocket(scope, receive, send)
        declared, dialect = found
        try:
            self._look(request)
            waits = self._gate(request, declared.access, dialect)
            if waits is not None:
                await waits
        except Refusal as refusal:
            await _deny(scope, send, _rendered(dialect, refusal, request))
            return
        await declared.handler(self._core, request, socket)


def _nothing() -> None:
    pass


def _rendered(dialect: Dialect, refusal: Refusal, request: Request) -> Reply:
    """Return what *dialect* says of *refusal*, with the headers that it has everywhere."""
    reply = dialect.render_error(refusal, request)
    if isinstance(refusal, HttpRefusal):
        reply.headers += refusal.headers
    return reply


async def _closed(pieces: AsyncIterator[bytes]) -> None:
    """End what makes *pieces*, if it can be told."""
    if isinstance(pieces, AsyncGenerator):
        await pieces.aclose()


async def _nobody(request: Request, server: bytes) -> Reply:
    raise Unavailable("only another server can answer this, and none is known")


async def _deny(scope: Scope, send: Send, reply: Reply) -> None:
    """Refuse a WebSocket handshake with an HTTP answer if the server supports it, else with a close code."""
    if "websocket.http.response" in scope.get("extensions", {}):
        length = (b"content-length", b"%d" % len(reply.body))
        headers = [(b"content-type", reply.media.encode()), length, *reply.headers]
        await send({"type": "websocket.http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": reply.body})
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": "refused"})


def _without_body(send: Send) -> Send:
    async def bodiless(message: Any) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return bodiless


@cache
def _repeated(struct: Any) -> frozenset[str]:
    """Return the fields of a query struct that are lists."""
    found = set()
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    for field in info.fields:
        plain = _without_words(field.type)
        kinds = plain.types if isinstance(plain, msgspec.inspect.UnionType) else (plain,)
        if any(isinstance(_without_words(kind), msgspec.inspect.ListType) for kind in kinds):
            found.add(field.encode_name)
    return frozenset(found)


def _without_words(kind: msgspec.inspect.Type) -> msgspec.inspect.Type:
    """Return a type without its description."""
    return _without_words(kind.type) if isinstance(kind, msgspec.inspect.Metadata) else kind


def _decode_query(struct: Any, request: Request, repeated: frozenset[str]) -> Any:
    given: dict[str, Any] = {}
    for name, value in request.query_pairs():
        if name in repeated:
            given.setdefault(name, []).append(value)
        else:
            given[name] = value
    try:
        return msgspec.convert(given, struct, strict=False)
    except msgspec.ValidationError as error:
        refusal = field_error(error)
        raise (refusal if isinstance(refusal, InvalidField) else InvalidField("query", str(error))) from error
