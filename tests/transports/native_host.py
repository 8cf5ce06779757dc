"""A host in the native shape for tests: it registers, asks, and brings frames, with plain HTTP and base64."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.dialects.infrintia.caller import LLAMA, Answer, Caller
from tests.dialects.infrintia.conftest import Market

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
OFFER = {"name": LLAMA, "kinds": ["chat", "completion"], "price_out_uusd_per_mtok": 100_000_000, "can_continue": True}


def b64(data: bytes | str) -> str:
    """Return *data* as the wire has it."""
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def items(*texts: str) -> list[dict[str, Any]]:
    """Return one frame for each text."""
    return [{"text": text} for text in texts]


@dataclass
class NativeHost:
    """One host, registered."""

    caller: Caller

    @property
    def id(self) -> bytes:
        """The 16-byte id."""
        return bytes.fromhex(self.caller.host_id[5:])

    async def next(self, *, wait_s: float = 5.0) -> Any:
        """Ask for a job; None when none came."""
        answer = await self.caller.post("/house/host/jobs/next", {"wait_s": wait_s})
        assert answer.status in (200, 204), answer.text
        return answer.body

    async def tell(self, job: Any, what: str, **fields: Any) -> Answer:
        """Post frames, done or fail of a job it was given."""
        return await self.caller.post(f"/house/host/jobs/{job['job_id']}/{what}", {"lease": job["lease"]} | fields)

    async def frames(self, job: Any, seq: int, *texts: str) -> Answer:
        """Bring plain frames."""
        return await self.tell(job, "frames", seq=seq, items=items(*texts))

    async def done(self, job: Any, end_seq: int, **fields: Any) -> Answer:
        """End a job."""
        return await self.tell(job, "done", end_seq=end_seq, **fields)


async def register(market: Market, *, by: Caller | None = None, **fields: Any) -> NativeHost:
    """Register a native host that polls, or with *endpoint_url* is pushed."""
    body = {"transport": "push" if "endpoint_url" in fields else "poll", "models": [OFFER], "slots": 4} | fields
    by = by or market.anyone
    answer = await by.post("/house/hosts", body)
    assert answer.status == 201, answer.text
    return NativeHost(Caller(by.session, by.url, answer.body["api_key"], answer.body["host_id"]))


async def chat(market: Market, **fields: Any) -> Answer:
    """Buy a chat completion through the OpenAI API."""
    body = {"model": LLAMA, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 64} | fields
    return await market.buyer.post("/v1/chat/completions", body)


async def bought(market: Market, **fields: Any) -> tuple[str, "asyncio.Task[dict[str, Any]]"]:
    """Buy text; give the job's id, and a task that waits for its end and gives what its buyer sees."""
    job_id = (await market.buyer.run(**fields)).body["job_id"]

    async def end() -> dict[str, Any]:
        await market.buyer.get(f"/jobs/{job_id}/stream")
        shown: dict[str, Any] = (await market.buyer.get(f"/jobs/{job_id}")).body
        return shown

    return job_id, asyncio.create_task(end())


def line(job: Any, type: str, **fields: Any) -> bytes:
    """Return one line of a pushed host's answer."""
    return json.dumps({"type": type, "lease": job["lease"]} | fields).encode()


def answering(
    make: Callable[[Any], list[bytes]], *, media: str = "application/x-ndjson", got: list[Any] | None = None
) -> Handler:
    """Answer a push with the network writes that *make* gives for its job."""

    async def handler(request: web.Request) -> web.StreamResponse:
        job = await request.json()
        if got is not None:
            got.append((job, request.headers))
        response = web.StreamResponse(headers={"content-type": media})
        await response.prepare(request)
        for piece in make(job):
            await response.write(piece)
            await asyncio.sleep(0)
        return response

    return handler
