"""PostgreSQL is killed, or stops, in the middle of streams: they flow on, new requests hear 503, all ends come when it
is back."""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from comptoir.dispatch.deferred_settlements import DeferredSettlements
from comptoir.kit.db import engine
from tests.at_once import at_once
from tests.journeys.held_engine import HeldEngine
from tests.post import Post, open_post
from tests.servers import OwnServer

STREAMS = 4
TOKENS = 60

BOUND_S = 30.0


@dataclass
class Followed:
    """A stream as its client sees it."""

    text: str = ""
    ends: list[str] = field(default_factory=list)


def _chat(*, stream: bool) -> dict[str, object]:
    messages = [{"role": "user", "content": "hi"}]
    return {"model": "trivial", "messages": messages, "max_tokens": TOKENS, "stream": stream}


async def _follow(session: aiohttp.ClientSession, seen: Followed) -> None:
    async with session.post("/v1/chat/completions", json=_chat(stream=True)) as answer:
        assert answer.status == 200
        async for line in answer.content:
            if line.startswith(b"data: [DONE]"):
                seen.ends.append("done")
            elif line.startswith(b"data: "):
                event = json.loads(line[6:])
                if "error" in event:
                    seen.ends.append(event["error"]["message"])
                seen.text += "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not holds():
            await asyncio.sleep(0.01)


async def _status_of(session: aiohttp.ClientSession, method: str, path: str, body: object = None) -> int:
    async with session.request(method, path, json=body) as answer:
        await answer.read()
        return answer.status


async def _refused_at_once(session: aiohttp.ClientSession) -> None:
    """What would write, what would read, and what asks how it is."""
    asks = (
        ("POST", "/v1/chat/completions", _chat(stream=False)),
        ("POST", "/run/model", {"model": "trivial", "input_text": "hi", "max_tokens": 5}),
        ("GET", "/house/statement", None),
    )
    for method, path, body in asks:
        async with at_once():
            status = await _status_of(session, method, path, body)
        assert (path, status) == (path, 503)


async def _outage(post: Post, *, lose: Callable[[], None], heal: Callable[[], None]) -> None:
    headers = {"authorization": f"Bearer {post.buyer_key}"}
    timeout = aiohttp.ClientTimeout(total=2 * BOUND_S)
    async with (
        post.worker(engine="tests.journeys.held_engine:HeldEngine"),
        aiohttp.ClientSession(post.url, headers=headers, timeout=timeout) as session,
        asyncio.TaskGroup() as clients,
    ):
        seen = [Followed() for _ in range(STREAMS)]
        for one in seen:
            clients.create_task(_follow(session, one))
        await _until(lambda: all(one.text == " tok" * (TOKENS // 2) for one in seen))

        lose()
        # Somebody has to ask before anybody can know.
        asking = clients.create_task(_status_of(session, "POST", "/v1/chat/completions", _chat(stream=False)))
        await _until(lambda: post.core.db.unavailable)
        await _refused_at_once(session)

        # However long it took to notice, no answer has ended yet.
        HeldEngine.go_on.set()
        await _until(lambda: all(one.text == " tok" * TOKENS for one in seen))
        # And perhaps that of the job which asked: where a server only stands still, it may have begun meanwhile.
        await _until(lambda: len(post.core.state(DeferredSettlements)) >= STREAMS)
        assert [one.ends for one in seen] == [[]] * STREAMS
        assert len(post.core.channels) == 1, "the worker's link stays open"
        assert await asking == 503
        assert await _status_of(session, "GET", "/health") == 503

        heal()
        await _until(lambda: all(one.ends == ["done"] for one in seen))
        async with session.post("/v1/chat/completions", json=_chat(stream=False)) as answer:
            assert answer.status == 200


class TestLostDatabase:
    @pytest.mark.parametrize("how", ["killed", "stopped"])
    async def test_streams_flow_on_and_end_when_it_is_back(
        self,
        tmp_path: Path,
        own_server: OwnServer,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        how: str,
    ) -> None:
        caplog.set_level(logging.CRITICAL)
        monkeypatch.setattr(engine, "ANSWER_S", 0.3)
        monkeypatch.setattr(engine, "WATCH_S", 0.1)
        lose, heal = (own_server.kill, own_server.start) if how == "killed" else (own_server.freeze, own_server.thaw)
        async with open_post(tmp_path, database=own_server.url, health_cache_s=0.0) as post:
            await _outage(post, lose=lose, heal=heal)
