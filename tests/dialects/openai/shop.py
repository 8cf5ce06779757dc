"""A trading post whose one host stands before an OpenAI stand-in, and a client down to the bytes."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tests.post import Post, open_post
from tests.worker.openai_stand_in import Handler, OpenAIStandIn, Request, delta, serve_openai, sse, stream_of

MODEL = "up/model-7b"
ROLE = delta({"role": "assistant", "content": ""})
STOP = delta({}, finish_reason="stop")
MODELS = {
    "object": "list",
    "data": [
        {"id": MODEL, "object": "model", "max_model_len": 1_000_000},
        {"id": "embed-small", "object": "model", "max_model_len": 8192},
    ],
}


@dataclass
class Response:
    """One whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of each event; ``[DONE]`` as text."""
        lines = [part.removeprefix("data: ") for part in self.body.decode().split("\n\n") if part.startswith("data: ")]
        return [line if line == "[DONE]" else msgspec.json.decode(line) for line in lines]


@dataclass
class Shop:
    """Everything a test of the dialect needs."""

    post: Post
    upstream: OpenAIStandIn
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.post.url

    def chat(self, text: str = "hi", **fields: Any) -> dict[str, Any]:
        return {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 50, **fields}

    def answers(self, handler: Handler) -> list[Request]:
        """Have the upstream answer with *handler* from now on; returns the list of requests it will see."""
        self.upstream.handler = handler
        self.upstream.requests.clear()
        self.upstream.gone.clear()
        return self.upstream.requests

    def says(self, *events: Any) -> list[Request]:
        """Have the upstream stream *events*."""
        return self.answers(stream_of(sse(*events)))

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, headers: dict[str, str] | None = None
    ) -> Response:
        sent = dict(headers or {})
        if key != "":
            sent["Authorization"] = f"Bearer {key or self.post.buyer_key}"
        data = io.BytesIO(body if isinstance(body, bytes) else msgspec.json.encode(body)) if body is not None else None
        async with self.session.request(method, self.url + path, data=data, headers=sent) as response:
            return Response(response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read())

    async def ask(self, body: Any = None, **kwargs: Any) -> Response:
        return await self.call("POST", "/v1/chat/completions", self.chat() if body is None else body, **kwargs)

    async def balance(self) -> tuple[int, int]:
        account = await self.post.core.ledger.account(self.post.buyer_id)
        return account.balance_uusd, account.held_uusd

    async def idle(self) -> None:
        """Wait until no job is in flight."""
        async with asyncio.timeout(5):
            while len(self.post.core.jobs.live):
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def open_shop(
    folder: Path, *, models: Any = MODELS, handler: Handler | None = None, **settings: Any
) -> AsyncIterator[Shop]:
    """Open post, stand-in (which lists *models*, and answers by *handler* when it is asked what it can do), worker and
    client."""
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(serve_openai())
        upstream.models, upstream.handler = models, handler or upstream.handler
        post = await stack.enter_async_context(open_post(folder, **settings))
        await stack.enter_async_context(post.worker(engine="openai", options={"base_url": upstream.base_url}, slots=32))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        await post.core.ledger.deposit(owner_id=post.buyer_id, amount_uusd=1_000_000_000)
        yield Shop(post, upstream, session)
