"""A dead engine is off the offer, its jobs go on elsewhere, and no buyer reads where it was."""

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest

from comptoir.worker import offering
from comptoir.worker.events import Event, JobFailed, OfferChanged
from tests.dialects.openai.shop import ROLE, Shop, open_shop
from tests.post import Post
from tests.worker.openai_stand_in import Answer, Handler, Request, delta, serve_openai, sse, stream_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAYS_WHERE = msgspec.json.encode(
    {"error": {"message": "no route to http://127.0.0.1:{port}/v1/x, 10.0.0.5:8000, /run/engine/in.sock", "code": 500}}
)


def answers(status: int, body: bytes = b"<html>", **headers: str) -> Handler:
    async def handle(asked: Request, answer: Answer) -> None:
        port = asked.headers["host"].rpartition(":")[2]
        await answer.whole(status, body.replace(b"{port}", port.encode()), **headers)

    return handle


async def resets(_: Request, answer: Answer) -> None:
    answer.reset()


async def breaks(_: Request, answer: Answer) -> None:
    answer.begin_stream()
    await answer.piece(sse(ROLE, delta({"content": "a"}), done=False))
    answer.reset()


FAILURES: list[tuple[str, Handler]] = [
    ("reset", resets),
    ("cut", breaks),
    *((f"HTTP {status}", answers(status)) for status in (401, 404, 502, 503)),
    *((f"HTTP {status} and where", answers(status, SAYS_WHERE)) for status in (400, 404, 500, 502, 503)),
    ("redirect", answers(307, b"", Location="http://10.0.0.5:8000/v1/chat/completions")),
    ("error event", stream_of(sse(msgspec.json.decode(SAYS_WHERE.replace(b"{port}", b"8000"))))),
    ("not a stream", stream_of(b"data: http://10.0.0.5:8000\n\n")),
]


class TestWords:
    @pytest.mark.parametrize("streamed", [False, True])
    @pytest.mark.parametrize("handler", [each for _, each in FAILURES], ids=[name for name, _ in FAILURES])
    async def test_no_buyer_reads_where_an_engine_is(self, shop: Shop, handler: Handler, streamed: bool) -> None:
        shop.answers(handler)

        response = await shop.ask(shop.chat(stream=streamed))
        job = (await shop.call("GET", "/house/jobs?limit=1")).json["jobs"][0]["id"]
        told = [response.body, (await shop.call("GET", f"/house/jobs/{job}")).body]
        told.append((await shop.call("GET", f"/jobs/{job}")).body)

        assert b"error" in response.body
        for inside in (b"127.0.0.1", b"10.0.0.5", str(shop.upstream.port).encode(), b":8000", b"/v1", b".sock"):
            assert not [one for one in told if inside in one.replace(shop.url.encode(), b"")]


class TestGone:
    async def test_its_jobs_go_on_elsewhere_and_it_comes_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(offering, "WITHDRAWN_S", 0.002)
        monkeypatch.setattr(offering, "ALIVE_S", 3600.0)  # It is a job that finds out.
        events: list[Event] = []
        async with contextlib.AsyncExitStack() as life, open_shop(tmp_path) as shop:
            dying = await life.enter_async_context(serve_openai())
            only = {"data": [{"id": "only-here"}, *shop.upstream.models["data"]]}
            dying.models = only
            # It is free, so jobs go to it as long as it lives.
            free = {"token_in": 0, "token_out": 0}
            options = {"base_url": f"127.0.0.1:{dying.port}/v1/"}
            async with shop.post.worker(
                engine="openai", options=options, name="dying", prices=free, slots=4, on_event=events.append
            ):
                await offered(shop.post, "only-here", True)
                await life.aclose()
                answers_ = await asyncio.gather(*(shop.ask(shop.chat(stream=True)) for _ in range(4)))
                await offered(shop.post, "only-here", False)
                away = await shop.ask(shop.chat() | {"model": "only-here"})
                async with serve_openai(port=dying.port) as back:
                    back.models = only
                    await offered(shop.post, "only-here", True)
                    again = await shop.ask(shop.chat() | {"model": "only-here"})

        assert [event.fault for event in events if isinstance(event, JobFailed)] != []
        assert [one.status for one in answers_] == [200] * 4
        assert all(b"error" not in one.body and one.body.endswith(b"[DONE]\n\n") for one in answers_)
        assert (away.status, away.json["error"]["code"]) == (404, "model_not_found")
        assert again.json["choices"][0]["message"]["content"] == "hi"
        assert any(isinstance(event, OfferChanged) and event.models == [] for event in events)


async def offered(post: Post, model: str, yes: bool) -> None:
    async with asyncio.timeout(10):
        while (post.core.fleet.model(model) is not None) is not yes:
            await asyncio.sleep(0.001)
