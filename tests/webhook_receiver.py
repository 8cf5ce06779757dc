"""The far side of webhooks: a real HTTP server on loopback that writes down what it got and answers as told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from tests.tcp import stop

BOUND_S = 20.0
"""A bound against hanging."""

Answer = Callable[["Got"], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Got:
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """Its ``webhook-id``."""
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict[str, Any]:
        """Its body, decoded."""
        return msgspec.json.decode(self.body, type=dict[str, Any])

    @property
    def number(self) -> int:
        """The number of its event."""
        return int(self.message["number"])


async def accept(got: Got) -> web.Response:
    """Answer as receivers do."""
    return web.Response(status=204)


def status(code: int, text: str = "", **headers: str) -> Answer:
    """Answer with *code*."""

    async def answer(got: Got) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=code, text=text, headers=named)

    return answer


@dataclass
class WebhookReceiver:
    """What it got, and how it answers next."""

    url: str = ""
    got: list[Got] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    """The next answers, one a request."""
    usual: Answer = accept
    """The answer when there are no others."""
    by_path: dict[str, Answer] = field(default_factory=dict)
    """Answers of some paths, whatever else is told."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def never(self, got: Got) -> web.Response:
        """Answer nothing, as long as it runs."""
        await self.over.wait()
        return web.Response(status=500)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        got = Got(request.path, dict(request.headers.items()), await request.read())
        got = Got(got.path, {name.lower(): value for name, value in got.headers.items()}, got.body)
        self.got.append(got)
        self._news.set()
        answer = self.by_path.get(got.path) or (self.answers.pop(0) if self.answers else self.usual)
        return await answer(got)

    async def until(self, count: int, *, path: str | None = None) -> list[Got]:
        """Wait until *count* requests have come (to *path*); return them."""
        async with asyncio.timeout(BOUND_S):
            while len(found := [one for one in self.got if path in (None, one.path)]) < count:
                self._news.clear()
                await self._news.wait()
        return found


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[WebhookReceiver]:
    """Run a receiver until the block ends."""
    receiver = WebhookReceiver()
    application = web.Application()
    application.router.add_post("/{path:.*}", receiver._handle)
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=0.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        receiver.url = f"http://{host}:{port}"
        yield receiver
    finally:
        receiver.over.set()
        await stop(runner)
