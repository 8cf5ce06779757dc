"""A server of one small dialect over real sockets, whose connections are counted; its clients send what they like."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from comptoir.kit.errors import NotAllowed
from comptoir.kit.http import (
    Access,
    BoundedHttpProtocol,
    BoundedWebSocketProtocol,
    Bounds,
    Dialect,
    Endpoint,
    HttpServer,
    HttpTraffic,
    Reply,
    Request,
    Socket,
    Stream,
    StreamAborted,
)
from tests.tcp import accepted

KIB = 1 << 10

KEEP_ALIVE_S = 60
"""How long a connection is kept on which nothing is asked."""

BOUND_S = 20.0
"""A bound against hanging; each test takes some milliseconds."""


class LaterLoop:
    """A connection's event loop, whose time can be moved."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.ahead_s = 0.0

    def time(self) -> float:
        """Return the loop's time, moved."""
        return self._loop.time() + self.ahead_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class Bounded:
    """What a test sees of the server."""

    def __init__(self, bounds: Bounds, exempt: tuple[str, ...]) -> None:
        self.traffic = HttpTraffic(bounds, exempt=exempt)
        self.go_on = asyncio.Event()
        """Requests to /wait are answered when it is set."""
        self.got: list[int] = []
        """Sizes of the bodies that came whole."""
        self.messages: list[bytes] = []
        self.pieces = 0
        """Pieces of /stream that were made."""
        self.port = 0
        self.connections: set[Any] = set()
        """Those that are open."""

    @contextlib.asynccontextmanager
    async def client(
        self, address: str = "127.0.0.1"
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Connect from *address*."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def ask(self, sent: bytes, *, address: str = "127.0.0.1") -> bytes:
        """Send all of *sent* and read until the server closes, or the answer's head and what came with it."""
        async with self.client(address) as (reader, writer):
            writer.write(sent)
            return await asyncio.wait_for(reader.read(64 * KIB), 10)

    def later(self, seconds: float) -> None:
        """Look after connections as if it were so many seconds later; first as it is now."""
        now_s = asyncio.get_running_loop().time()
        self.traffic.sweep(now_s)
        self.traffic.sweep(now_s + seconds)

    async def hear(self, core: Any, request: Request, socket: Any) -> None:
        """Keep the messages of one WebSocket."""
        await socket.accept()
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            self.messages.append(message["bytes"])

    async def undecided(self, core: Any, request: Request, socket: Any) -> None:
        """Let nobody in yet."""
        self.messages.append(b"asked")
        await self.go_on.wait()

    async def until(self, what: Any) -> None:
        """Wait until *what* (a function) is true."""
        async with asyncio.timeout(10):
            while not what():
                await asyncio.sleep(0.001)


def _shaped(error: Exception, request: Request | None) -> Reply:
    status = {"HeadTooLarge": 431, "TooSlow": 408, "Unavailable": 503, "NotAllowed": 403}.get(type(error).__name__, 400)
    return Reply(status, f"shaped:{error}".encode(), headers=((b"retry-after", b"5"),))


async def _small(core: Any, request: Request) -> Reply:
    return Reply(200, b"small")


async def _bad(core: Any, request: Request) -> Reply:
    return Reply(200, b"bad", headers=((b"x-name", b"a\r\nx-smuggled: b"),))


async def _few(core: Any, request: Request) -> Stream:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one ", b"two ", b"three"):
            yield piece
            await asyncio.sleep(0)

    return Stream(pieces())


async def _breaks(core: Any, request: Request) -> Stream:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one "
        await asyncio.sleep(0)
        raise StreamAborted("it broke")

    return Stream(pieces())


@contextlib.asynccontextmanager
async def serving(
    *, exempt: tuple[str, ...] = (), refusing: bool = False, body_bytes_max: int = 1 << 20, **bounds: Any
) -> AsyncIterator[Bounded]:
    """Serve with these bounds; *refusing* lets nobody in."""
    made = Bounded(Bounds(**bounds), exempt)

    async def take(core: Any, request: Request) -> Reply:
        made.got.append(len(request.raw))
        return Reply(200, b"taken")

    async def wait(core: Any, request: Request) -> Reply:
        await made.go_on.wait()
        return Reply(200, b"waited")

    async def stream(core: Any, request: Request) -> Stream:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                made.pieces += 1
                yield bytes(4 * KIB)

        return Stream(pieces())

    dialect = Dialect(
        "test", "Test", "",
        (
            Endpoint("GET", "/small", _small, Access.PUBLIC, "Small."),
            Endpoint("GET", "/bad", _bad, Access.PUBLIC, "Breaks its head."),
            Endpoint("POST", "/take", take, Access.PUBLIC, "Takes.", raw=True),
            Endpoint("POST", "/wait", wait, Access.PUBLIC, "Waits.", raw=True),
            Endpoint("GET", "/few", _few, Access.PUBLIC, "Ends soon."),
            Endpoint("GET", "/breaks", _breaks, Access.PUBLIC, "Breaks off."),
            Endpoint("GET", "/stream", stream, Access.PUBLIC, "Never ends."),
        ),
        _shaped,
        sockets=(
            Socket("/socket", made.hear, Access.PUBLIC, "A socket."),
            Socket("/undecided", made.undecided, Access.PUBLIC, "One that is not let in yet."),
        ),
    )  # fmt: skip

    def gate(request: Request, access: Access, dialect: Dialect) -> None:
        request.address = request.peer
        if refusing:
            raise NotAllowed("nobody is let in")

    app = HttpServer(None, [dialect], gate=gate, body_bytes_max=body_bytes_max)
    config = uvicorn.Config(
        app, interface="asgi3", lifespan="off", log_config=None, access_log=False, ws_max_size=1 << 20,
        ws_per_message_deflate=False, ws_ping_interval=None, timeout_keep_alive=KEEP_ALIVE_S, proxy_headers=False,
        http=partial(BoundedHttpProtocol, traffic=made.traffic),  # type: ignore[arg-type]
        ws=partial(BoundedWebSocketProtocol, traffic=made.traffic),  # type: ignore[arg-type]
    )  # fmt: skip
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()
    made.connections = state.connections
    server = await loop.create_server(
        lambda: config.http_protocol_class(config=config, server_state=state, app_state={}, _loop=loop),  # type: ignore[call-arg]
        "127.0.0.1", 0,
    )  # fmt: skip
    made.port = server.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(BOUND_S):
            yield made
    finally:
        server.close()
        await accepted()
        for connection in list(state.connections):
            connection.transport.abort()
        made.go_on.set()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        await made.until(lambda: made.traffic.connections == 0)
        # Whatever happened, nothing is counted of connections that are gone.
        traffic = made.traffic
        assert (traffic.heads.held, traffic.bodies.held, traffic.messages.held, traffic.readers.held) == (0, 0, 0, 0)
        assert traffic.watched == 0
