"""One request as a handler sees it, and what a handler may return."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl

from comptoir.kit.errors import Unavailable

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CONNECTION = "comptoir.connection"
"""Where a request's scope has the connection that it came on, if that counts what it holds."""

GIVEN = "comptoir.given"
"""Where a request's scope has its headers by name, of one that came several times the last, if its connection made
that."""

WATCH_AFTER_S = 0.05
"""Only an answer that takes longer is watched for its client hanging up; most are done before (watching all of them
took 9 % of a chat completion's CPU under load)."""


class Sender(Enum):
    """Who sent a request, as far as its headers tell (`browsers.BrowserPolicy`)."""

    PROGRAM = 1
    """A program: no headers of a browser."""
    OWN_PAGE = 2
    """A browser, for a page of this server or a typed address."""
    FOLLOWED_LINK = 3
    """A browser that follows a link on a foreign page, which can't see the answer."""
    ALLOWED_PAGE = 4
    """A browser, for a foreign page whose origin is allowed to call with a key."""


class Request:
    """A request. Parts are parsed only when accessed."""

    __slots__ = (
        "scope",
        "receive",
        "sender",
        "headers",
        "params",
        "principal",
        "body",
        "query",
        "raw",
        "rate",
        "id",
        "address",
        "started_s",
        "_gone",
        "_release",
        "_watch",
    )

    def __init__(self, scope: Scope, receive: Receive, params: dict[str, str]) -> None:
        self.scope = scope
        self.receive = receive
        self.params = params
        """Path parameters."""
        self.sender = Sender.PROGRAM
        """Who sent it."""
        self.headers: Mapping[bytes, bytes] = scope[GIVEN] if GIVEN in scope else dict(scope["headers"])
        """Headers by name in lower case, the last one if repeated; those that determine caller and target were sent
        only once (`browsers.DECIDING`)."""
        self.principal: Any = None
        """The authenticated caller; None for public endpoints."""
        self.body: Any = None
        """Decoded body."""
        self.query: Any = None
        """Decoded query string."""
        self.raw = b""
        """The body as sent."""
        self.rate: Any = None
        """State of the caller's rate limit after this request."""
        client = scope.get("client")
        self.address = client[0] if client else ""
        """The caller's address: the socket's peer (empty: not known), or the one that a trusted proxy reports."""
        self.id = ""
        """Request id, as sent back in ``x-request-id``."""
        self.started_s = time.perf_counter()
        """When it came in, on `time.perf_counter`."""
        self._gone: list[Callable[[], None]] | None = None
        self._release: Callable[[], None] | None = None
        self._watch: asyncio.Task[None] | asyncio.TimerHandle | None = None

    @property
    def path(self) -> str:
        """The requested path."""
        return str(self.scope["path"])

    @property
    def method(self) -> str:
        """GET, POST, …; a WebSocket begins as GET."""
        return str(self.scope.get("method", "GET"))

    @property
    def peer(self) -> str:
        """Address of the socket's peer; empty when unknown."""
        client = self.scope.get("client")
        return client[0] if client else ""

    def header(self, name: bytes) -> str:
        """Return a header (lower-case *name*) as text, empty when absent; the last one if repeated."""
        return self.headers.get(name, b"").decode("latin-1")

    def query_pairs(self) -> list[tuple[str, str]]:
        """Return the query string's pairs in order."""
        raw = self.scope["query_string"]
        return parse_qsl(raw.decode("latin-1"), keep_blank_values=True) if raw else []

    def when_gone(self, call: Callable[[], None]) -> None:
        """Run *call* if the client hangs up before the answer is complete; at most 100 ms late."""
        if self._gone is None:
            self._gone = [call]
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(WATCH_AFTER_S, self._start_watch)
        else:
            self._gone.append(call)

    def holds(self, release: Callable[[], None]) -> None:
        """Have *release* called when the request is answered, or can't be, whatever happened to it."""
        assert self._release is None
        self._release = release

    @property
    def holding(self) -> bool:
        """Whether something is held for its answer already (`holds`)."""
        return self._release is not None

    def answered(self) -> None:
        """Stop watching; the server calls it when the answer is complete."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._gone = None
        if self._release is not None:
            self._release()

    def hung_up(self) -> None:
        """Tell whoever asked (`when_gone`) that the client has hung up; only once."""
        calls, self._gone = self._gone or [], None
        for call in calls:
            call()

    def _start_watch(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._wait_gone())

    async def _wait_gone(self) -> None:
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                break
        self.hung_up()


def while_connected(handler: Callable[[Any, Request], Awaitable[Any]]) -> Callable[[Any, Request], Awaitable[Any]]:
    """Return *handler*, but cancelled when its client hangs up: it only reads, and nobody waits for the answer."""

    async def watched(core: Any, request: Request) -> Any:
        answer = asyncio.ensure_future(handler(core, request))

        def stop() -> None:
            answer.cancel()

        request.when_gone(stop)
        try:
            return await answer
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Unavailable("the client has hung up") from None  # To nobody.

    return watched


class Reply:
    """A complete answer that is not the endpoint's declared JSON at its declared status."""

    __slots__ = ("status", "body", "media", "headers", "release")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        *,
        media: str = "application/json",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        release: Callable[[], None] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.media = media
        self.headers = headers
        self.release = release
        """Called once when the answer was sent or could not be: room that was held for it is given back."""


class Stream:
    """An answer sent in pieces, each at once. Closing the iterator early must stop its source.

    *length*: how many bytes they are together; None: nobody knows, and nothing keeps them (no cache, no proxy).
    """

    __slots__ = ("pieces", "media", "headers", "status", "length")

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        *,
        media: str = "text/event-stream",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        status: int = 200,
        length: int | None = None,
    ) -> None:
        self.length = length
        self.pieces = pieces
        self.media = media
        self.headers = headers
        self.status = status
