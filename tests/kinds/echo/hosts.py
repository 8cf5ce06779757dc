"""Hosts of echoes without our worker, in the native shape: one that polls, one that is called. Each may be lost
half-way."""

import asyncio
import base64
import json
from typing import Any

import aiohttp
from aiohttp import web

from comptoir.link import Frame
from tests.kinds.echo.engine import pieces
from tests.tcp import stop

OFFER = {"name": "parrot", "kinds": ["echo"], "prices": {"byte": 20_000_000}, "can_continue": True}
"""20 micro-dollars a byte: two credits a kilobyte."""


async def register(session: aiohttp.ClientSession, url: str, **fields: Any) -> str:
    """Register a host; return its key."""
    body = {"transport": "poll", "gpu": "larynx", "models": [OFFER], "slots": 2} | fields
    async with session.post(url + "/house/hosts", json=body) as answer:
        assert answer.status == 201, await answer.text()
        key: str = (await answer.json())["api_key"]
        return key


def items(frames: list[Frame]) -> list[dict[str, Any]]:
    """Return frames as the native shape has them."""
    return [{"text": frame.text, "tokens": frame.tokens} for frame in frames]


def still_to_come(job: dict[str, Any]) -> list[Frame]:
    """Return what the job's host has to make."""
    return pieces(base64.b64decode(job["body"]), have=job["start_seq"])


class _EchoHost:
    """Knows where it serves, and where it is to be lost: behind *lost_after* pieces, once that is *lost*."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        lost_after: int | None = None,
        lost: asyncio.Event | None = None,
    ) -> None:
        self._session = session
        self._url = url
        self._lost_after = lost_after
        self._lost = lost or asyncio.Event()


class PollingHost(_EchoHost):
    """Asks for work; gives it back when it is to be lost."""

    async def serve(self) -> None:
        """Do one job."""
        self._key = await register(self._session, self._url)
        status, job = 204, None
        while status == 204:
            status, job = await self._call("next", {"wait_s": 10})
        assert job is not None, status
        seq, made = job["start_seq"], still_to_come(job)[: self._lost_after]
        for frame in made:
            assert await self._tell(job, "frames", seq=seq, items=items([frame])) == 200
            seq += 1
        if self._lost_after is None:
            assert (
                await self._tell(job, "done", end_seq=seq, usage={"completion_tokens": sum(f.tokens for f in made)})
                == 200
            )
        else:
            await self._lost.wait()
            assert await self._tell(job, "fail", code="gone", message="the parrot flew away", fault="host") == 200

    async def _tell(self, job: dict[str, Any], what: str, **fields: Any) -> int:
        status, _ = await self._call(f"{job['job_id']}/{what}", {"lease": job["lease"]} | fields)
        return status

    async def _call(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {self._key}"}
        async with self._session.post(f"{self._url}/house/host/jobs/{path}", json=body, headers=headers) as answer:
            return answer.status, await answer.json() if answer.status == 200 else None


class PushedHost(_EchoHost):
    """Is called with the job; hangs up when it is to be lost."""

    async def serve(self) -> None:
        """Do one job."""
        self._called = asyncio.Event()
        app = web.Application()
        app.router.add_post("/", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            await register(self._session, self._url, transport="push", endpoint_url=f"http://127.0.0.1:{port}/")
            await self._called.wait()
        finally:
            await stop(runner)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        job = await request.json()
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await response.prepare(request)
        seq, made = job["start_seq"], still_to_come(job)[: self._lost_after]
        for frame in made:
            await response.write(_line(job, "frames", seq=seq, items=items([frame])))
            seq += 1
        if self._lost_after is None:
            usage = {"completion_tokens": sum(frame.tokens for frame in made)}
            await response.write(_line(job, "done", end_seq=seq, finish_reason="stop", usage=usage))
        else:
            await self._lost.wait()
        self._called.set()
        return response


def _line(job: dict[str, Any], type: str, **fields: Any) -> bytes:
    return json.dumps({"type": type, "lease": job["lease"]} | fields).encode() + b"\n"
