"""Ask an ASGI application directly, without a socket; and a server over declarations whose handlers are stand-ins."""

import dataclasses
import re
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from comptoir.dialects import DIALECTS
from comptoir.dispatch import Core
from comptoir.gateway import Gate, browser_policy
from comptoir.kit.http import Dialect, Endpoint, HttpServer, Reply, Socket

Header = tuple[bytes, bytes]

JSON: tuple[Header, ...] = ((b"content-type", b"application/json"),)

LET_IN = 299
"""Status of a stand-in: the gate let the caller in and the path led here."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


async def ask(
    app: HttpServer, method: str, path: str, *, key: str = "", socket: bool = False, headers: Sequence[Header] = JSON
) -> Answer:
    """Send one request (or a WebSocket handshake) to *app*."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"} if socket else {"type": "http.request", "body": b""}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    given_headers = [*headers, (b"authorization", f"Bearer {key}".encode())] if key else list(headers)
    scope = {
        "type": "websocket" if socket else "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": given_headers,
        "client": ("127.0.0.1", 1),
        "scheme": "http",
        "extensions": {"websocket.http.response": {}},
    }
    await app(scope, receive, send)
    first = sent[0]
    given = {name.decode(): value.decode() for name, value in first.get("headers", ())}
    status = LET_IN if first["type"] == "websocket.close" else first["status"]
    return Answer(status, given, b"".join(message.get("body", b"") for message in sent))


def standing_in(core: Core, answer: Callable[[Dialect, Endpoint], bytes] = lambda *_: b"") -> HttpServer:
    """Return a server with everybody's declarations and the real gate, whose handlers do nothing but say *answer*."""

    def handler(dialect: Dialect, endpoint: Endpoint) -> Any:
        async def stand_in(_core: object, _request: object) -> Reply:
            return Reply(LET_IN, answer(dialect, endpoint))

        return stand_in

    async def socket_stand_in(_core: object, _request: object, socket: Any) -> None:
        await socket.close(1000)

    def emptied(dialect: Dialect) -> Dialect:
        endpoints = [
            dataclasses.replace(
                one, handler=handler(dialect, one), request=None, query=None, raw=one.raw or one.request is not None
            )
            for one in dialect.endpoints
        ]
        sockets: list[Socket] = [dataclasses.replace(one, handler=socket_stand_in) for one in dialect.sockets]
        return dataclasses.replace(dialect, endpoints=tuple(endpoints), sockets=tuple(sockets))

    gate = Gate(core.identity, core.settings, core.clock, dialects=DIALECTS)
    return HttpServer(
        core,
        [emptied(one) for one in DIALECTS],
        gate=gate,
        body_bytes_max=1 << 20,
        browsers=browser_policy(core.settings),
    )


def sample(path: str) -> str:
    """Return *path* with a word for each of its parameters."""
    return re.sub(r"\{\w+(?::\w+)?\}", "sample-1", path)
