"""A container on loopback that speaks the container contract, and misbehaves in every way that a test asks for.

`serve_container` runs one; `answer` decides what a run gives and may be changed at any time. What came in is in `runs`
and `asked`, word for word.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from tests.tcp import stop

RESOURCES = b'{"service_id": "stand-in",  "hardware_capabilities": [], "compute_capability": []}'
"""With a space too many: what a container says is passed on word for word."""


class Run:
    """One ``POST /service_output`` as it came in."""

    def __init__(self, container: "ContainerStandIn", request: web.Request, body: bytes) -> None:
        self.container = container
        self.request = request
        self.body = body
        self.ended = asyncio.Event()
        """Set when the answer is over, also when who asked has hung up."""

    @property
    def json(self) -> dict[str, Any]:
        """The body, decoded."""
        decoded: dict[str, Any] = msgspec.json.decode(self.body)
        return decoded

    @property
    def data(self) -> bytes:
        """The input, word for word."""
        return bytes(msgspec.json.decode(self.body, type=dict[str, msgspec.Raw])["data"])


Answer = Callable[[Run], Awaitable[web.StreamResponse]]


async def echo(run: Run) -> web.StreamResponse:
    """Give the input back, word for word."""
    return web.Response(body=run.data, content_type="application/json")


def says(body: bytes, *, status: int = 200, content_type: str = "application/json", **headers: str) -> Answer:
    """Always answer so: ``says(b"no", status=500, content_type="text/plain")``."""

    async def answer(run: Run) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, content_type=content_type, headers=named)

    return answer


def appends(word: str) -> Answer:
    """Say the input's ``said`` with *word* behind it: what a chain does can be read from its output."""

    async def answer(run: Run) -> web.StreamResponse:
        said = run.json["data"]
        before = said.get("said", []) if isinstance(said, dict) else []
        return web.json_response({"said": [*before, word]})

    return answer


def streams(*pieces: bytes | asyncio.Event, cut: bool = False, length: int | None = None) -> Answer:
    """Send *pieces* one by one, waiting at each event; *cut* breaks the connection then, *length* is what is
    promised."""

    async def answer(run: Run) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        if length is not None:
            response.content_length = length
        await response.prepare(run.request)
        for piece in pieces:
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            else:
                await response.write(piece)
                # Each piece is a packet of its own, as far as a loopback has any.
                await asyncio.sleep(0.001)
        if cut or length is not None:
            hang_up(run)
        else:
            await response.write_eof()
        return response

    return answer


def after(event: asyncio.Event, then: Answer = echo) -> Answer:
    """Answer as *then* once *event* is set."""

    async def answer(run: Run) -> web.StreamResponse:
        await event.wait()
        return await then(run)

    return answer


async def dies(run: Run) -> web.StreamResponse:
    """Break the connection without any answer."""
    hang_up(run)
    return web.Response()


async def redirects(run: Run) -> web.StreamResponse:
    """Send whoever asks to another path of this container, which would answer well."""
    raise web.HTTPTemporaryRedirect(f"{run.container.url}/elsewhere/service_output")


def hang_up(run: Run) -> None:
    """Break a run's connection the hard way."""
    assert run.request.transport is not None
    run.request.transport.abort()


class ContainerStandIn:
    """One container: `answer` makes its outputs."""

    def __init__(self, answer: Answer, *, bearer: str) -> None:
        self.url = ""
        self.answer = answer
        self.bearer = bearer
        self.resources: bytes | None = RESOURCES
        """Of ``GET /service-resources``; None: that path is not there."""
        self.supports: dict[str, bytes] = {"storage/owner/name:file": b'{"supported":true}'}
        """What it says of a model that it is asked about; of any other, that it does not support it."""
        self.silent = False
        """True: nothing is answered to anything but a run."""
        self.runs: list[Run] = []
        self.asked: list[str] = []
        """Path and query of everything that was no run."""
        self.authorizations: list[str] = []
        self.connections: set[int] = set()
        self._came = asyncio.Event()

    async def came(self, count: int = 1) -> Run:
        """Wait until *count* runs have come in; return the last of them."""
        async with asyncio.timeout(10):
            while len(self.runs) < count:
                self._came.clear()
                await self._came.wait()
        return self.runs[count - 1]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        self.authorizations.append(request.headers.get("Authorization", ""))
        self.connections.add(id(request.transport))
        if self.bearer and self.authorizations[-1] != f"Bearer {self.bearer}":
            return web.json_response({"error": "who are you?"}, status=401)
        if request.method == "POST" and request.path.endswith("/service_output"):
            return await self._run(request)
        self.asked.append(request.raw_path)
        if self.silent:
            await asyncio.Event().wait()
        if request.path == "/" and self.resources is not None:
            return web.json_response({"message": "hello"})
        if request.path == "/service-resources" and self.resources is not None:
            model_id = request.query.get("model_id")
            body = self.resources if model_id is None else self.supports.get(model_id, b'{"supported":false}')
            return web.Response(body=body, content_type="application/json")
        return web.Response(status=404)

    async def _run(self, request: web.Request) -> web.StreamResponse:
        run = Run(self, request, await request.read())
        self.runs.append(run)
        self._came.set()
        try:
            return await self.answer(run)
        finally:
            run.ended.set()


@asynccontextmanager
async def serve_container(answer: Answer = echo, *, bearer: str = "", port: int = 0) -> AsyncIterator[ContainerStandIn]:
    """Run a container on *port* (0: a free one) of 127.0.0.1."""
    container = ContainerStandIn(answer, bearer=bearer)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", container.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
    await site.start()
    host, bound = runner.addresses[0][:2]
    container.url = f"http://{host}:{bound}"
    try:
        yield container
    finally:
        await stop(runner)
