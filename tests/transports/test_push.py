"""Hosts with an address: the job is posted there, every kind of answer is understood, every kind of failure
attributed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from comptoir.hosts import Host
from comptoir.jobs import Fault
from comptoir.ledger import audit
from tests.dialects.infrintia.caller import Answer, Caller, events
from tests.dialects.infrintia.conftest import Market
from tests.dispatch.acting import retire
from tests.tcp import stop

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def settings() -> dict[str, Any]:
    """The hosts of these tests are neighbours."""
    return {"allow_private_endpoint_urls": True, "push_timeout_s": 0.5}


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """Serve one address of a host; a request under way is cancelled when its client goes."""
    app = web.Application()
    app.router.add_post("/infer", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        yield f"http://127.0.0.1:{port}/infer"
    finally:
        await stop(runner)


async def ended(market: Market, job_id: str) -> dict[str, Any]:
    """Wait for the job's end; return what its buyer sees."""
    await market.buyer.get(f"/jobs/{job_id}/stream")
    shown: dict[str, Any] = (await market.buyer.get(f"/jobs/{job_id}")).body
    return shown


async def bought_from(market: Market, handler: Handler, **fields: Any) -> tuple[dict[str, Any], Host]:
    """Buy one answer from a host that is served by *handler*; return the ended job and the host."""
    async with serving(handler) as url:
        host = await market.anyone.register(endpoint_url=url)
        job_id = (await market.buyer.run(**fields)).body["job_id"]
        shown = await ended(market, job_id)
    return shown, market.core.fleet.get(bytes.fromhex(host.host_id[5:]))


def stream_of(*pieces: bytes, pause_s: float = 0.0) -> Handler:
    """Answer with an event stream of these network writes."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(pause_s)
        return response

    return handler


def json_of(body: Any) -> Handler:
    """Answer with JSON."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response(body)

    return handler


class TestWhatIsPosted:
    async def test_the_host_gets_the_job_as_text(self, market: Market) -> None:
        got: list[Any] = []

        async def handler(request: web.Request) -> web.StreamResponse:
            got.append(await request.json())
            return web.json_response({"output_text": "fine"})

        shown, host = await bought_from(market, handler)

        assert got == [
            {
                "job_id": shown["job_id"],
                "model": "meta-llama/Llama-3-8B-Instruct",
                "input_text": "Explain quantum computing.",
                "max_tokens": 256,
                "temperature": 0.7,
                "host_id": "host_" + host.id.hex(),
            }
        ]


@pytest.mark.asyncio(loop_scope="module")
class TestAnswers:
    @pytest.mark.parametrize(
        ("body", "text", "tokens"),
        [
            ({"output_text": "x" * 40}, "x" * 40, 10),
            ({"output_text": "one two", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}, "one two", 2),
            ({"tokens": ["one", " two"]}, "one two", 2),
            ({"token": "one"}, "one", 1),
            ({"text": "abcd"}, "abcd", 1),
            ({"choices": [{"message": {"content": "abcd"}}], "usage": {"completion_tokens": 3}}, "abcd", 3),
            ({"choices": [{"text": "abcd", "finish_reason": "length"}]}, "abcd", 1),
            ({"output_text": ""}, "", 0),
        ],
    )
    async def test_json_is_understood(self, shared: Market, body: Any, text: str, tokens: int) -> None:
        shown, host = await bought_from(shared, json_of(body))
        await retire(shared.core, host.id)

        assert (shown["status"], shown["output_text"], shown["tokens"]) == ("completed", text, tokens)
        assert shown["credits_used"] == tokens / 100
        assert host.jobs_done == 1
        assert await audit(shared.core.db) == []

    @pytest.mark.parametrize(
        "pieces",
        [
            (b'data: {"token": "a"}\n\ndata: {"token": " b"}\n\ndata: [DONE]\n\n',),
            (b'data: {"tok', b'en": "a"}\r\n\r\n: ping\n\nid: 4\ndata: {"token":" b"}\n', b"\ndata: [DO", b"NE]\n\n"),
            (
                b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
                b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"choices":[{"delta":{"content":" b"}}]}\n\n',
                b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
                b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\ndata: [DONE]\n\n',
            ),
        ],
    )
    async def test_event_streams_are_understood(self, shared: Market, pieces: tuple[bytes, ...]) -> None:
        shown, host = await bought_from(shared, stream_of(*pieces))
        await retire(shared.core, host.id)

        assert (shown["status"], shown["output_text"], shown["tokens"]) == ("completed", "a b", 2)
        assert shown["finish_reason"] == "stop"


class TestWhileItAnswers:
    async def test_tokens_reach_the_buyer_while_the_host_goes_on(self, market: Market) -> None:
        go_on = asyncio.Event()

        async def handler(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(b'data: {"token": "first"}\n\n')
            await go_on.wait()
            await response.write(b"data: [DONE]\n\n")
            return response

        async with serving(handler) as url:
            await market.anyone.register(endpoint_url=url)
            job_id = (await market.buyer.run()).body["job_id"]
            path = f"{market.post.url}/jobs/{job_id}/stream"
            headers = {"authorization": f"Bearer {market.buyer.key}"}
            async with market.buyer.session.get(path, headers=headers) as response:
                assert await response.content.readuntil(b"\n\n") == b'id: 0\ndata: {"token": "first"}\n\n'
                go_on.set()
                assert await response.text() == "data: [DONE]\n\n"

    @pytest.mark.parametrize("status", [202, 204])
    async def test_a_host_that_accepts_brings_the_answer_itself(self, market: Market, status: int) -> None:
        got: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def handler(request: web.Request) -> web.StreamResponse:
            got.set_result((await request.json())["job_id"])
            return web.Response(status=status)

        async with serving(handler) as url:
            host = await market.anyone.register(endpoint_url=url)
            await market.buyer.run()
            job_id = await got
            assert (await host.chunk(job_id, "a", seq=0)).status == 200
            assert (await host.complete(job_id, tokens=["b"])).status == 200

        assert (await ended(market, job_id))["output_text"] == "ab"


class TestSignsOfLife:
    async def test_answering_is_one(self, market: Market) -> None:
        async def handler(request: web.Request) -> web.StreamResponse:
            host_id = bytes.fromhex((await request.json())["host_id"][5:])
            market.core.fleet.get(host_id).seen_s -= 1000
            return web.json_response({"tokens": ["x"]})

        _, host = await bought_from(market, handler)

        assert market.core.fleet.silent() == []
        assert host.status == "active"


class TestFailures:
    @pytest.mark.parametrize(
        ("handler", "code", "says"),
        [
            (stream_of(b'data: {"token": "a"}\n\n'), "push_failed", "hung up"),
            (stream_of(b'data: {"error": "out of memory"}\n\n'), "push_failed", "out of memory"),
            (stream_of(b"data: nonsense\n\n"), "push_failed", "not understood"),
            (stream_of(b"data: " + b"x" * ((1 << 20) + 9)), "push_failed", "longer than"),
            (json_of({"error": {"message": "no"}}), "push_failed", "no"),
            (json_of([1]), "push_failed", "not understood"),
            (json_of({"tokens": ["x"] * 300}), "push_failed", "300 tokens"),
        ],
    )
    async def test_a_bad_answer_is_the_hosts_fault(
        self, market: Market, handler: Handler, code: str, says: str
    ) -> None:
        shown, host = await bought_from(market, handler)

        assert (shown["status"], shown["error"]["code"]) == ("failed", code)
        assert says in shown["error"]["message"]
        assert (host.jobs_done, host.jobs_failed) == (0, 1)
        assert market.core.fleet.explain_reputation(host.id).score < 0.25

    @pytest.mark.parametrize(
        ("status", "fault"),
        [
            (500, Fault.HOST),
            (404, Fault.HOST),
            (302, Fault.HOST),
            (200, Fault.HOST),
            (429, Fault.CAPACITY),
            (503, Fault.CAPACITY),
        ],
    )
    async def test_fault_goes_by_status(self, market: Market, status: int, fault: Fault) -> None:
        async def handler(request: web.Request) -> web.StreamResponse:
            return web.Response(
                status=status, text="busy?", headers={"location": "http://127.0.0.1:1/", "retry-after": "7"}
            )

        shown, host = await bought_from(market, handler)

        row = await market.core.jobs.get(bytes.fromhex(shown["job_id"][4:]))
        assert (row.state, row.fault) == ("failed", fault)
        assert host.jobs_failed == (fault == Fault.HOST)
        assert shown["credits_used"] == 0

    async def test_nobody_at_the_address_lowers_the_reputation(self, market: Market) -> None:
        host = await market.anyone.register(endpoint_url="http://127.0.0.1:1/infer")
        job_id = (await market.buyer.run()).body["job_id"]

        shown = await ended(market, job_id)

        assert shown["status"] == "failed"
        assert market.core.fleet.get(bytes.fromhex(host.host_id[5:])).jobs_failed == 1

    async def test_silence_before_the_first_byte_is_cut_short(self, market: Market) -> None:
        async def handler(request: web.Request) -> web.StreamResponse:
            await asyncio.sleep(60)
            raise AssertionError

        shown, host = await bought_from(market, handler)

        assert "no answer within 0.5 s" in shown["error"]["message"]
        assert host.jobs_failed == 1

    async def test_another_host_takes_over_what_was_not_begun(self, market: Market) -> None:
        async def broken(request: web.Request) -> web.StreamResponse:
            return web.Response(status=500)

        async with serving(broken) as bad, serving(json_of({"tokens": ["good"]})) as good:
            await market.anyone.register(endpoint_url=bad)
            await market.anyone.register(endpoint_url=good, price_per_token=0.0001)
            texts = set()
            for _ in range(4):
                texts.add((await ended(market, (await market.buyer.run()).body["job_id"]))["output_text"])

        assert texts == {"good"}

    @pytest.mark.parametrize("settings", [{}])
    async def test_addresses_inside_are_refused(self, market: Market) -> None:
        from_outside: Answer = await market.anyone.post(
            "/hosts/register", {"gpu": "g", "models": ["m"], "price_per_token": 0, "endpoint_url": "http://10.0.0.1/x"}
        )

        assert from_outside.status == 422
        assert from_outside.body["detail"][0]["loc"] == ["body", "endpoint_url"]


class TestBounds:
    async def test_a_cancelled_job_closes_the_connection(self, market: Market) -> None:
        closed = asyncio.Event()

        async def handler(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(b'data: {"token": "a"}\n\n')
            try:
                await asyncio.sleep(60)
            finally:
                closed.set()
            return response

        async with serving(handler) as url:
            await market.anyone.register(endpoint_url=url)
            job_id = (await market.buyer.run()).body["job_id"]
            path = f"{market.post.url}/jobs/{job_id}/stream"
            async with market.buyer.session.get(
                path, headers={"authorization": f"Bearer {market.buyer.key}"}
            ) as response:
                await response.content.readuntil(b"\n\n")
                cancelled = await market.buyer.post(f"/jobs/{job_id}/cancel")
                await asyncio.wait_for(closed.wait(), 2)

        assert (cancelled.body["status"], cancelled.body["output_text"]) == ("cancelled", "a")

    async def test_never_more_at_once_than_its_slots(self, market: Market) -> None:
        running = most = 0

        async def handler(request: web.Request) -> web.StreamResponse:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            return web.json_response({"tokens": ["x"]})

        async with serving(handler) as url:
            await market.anyone.register(endpoint_url=url, slots=2)
            ids = [(await market.buyer.run(max_tokens=1)).body["job_id"] for _ in range(12)]
            shown = [await ended(market, job_id) for job_id in ids]

        assert {each["status"] for each in shown} == {"completed"}
        assert most == 2

    async def test_a_host_with_an_address_may_poll_all_the_same(self, market: Market) -> None:
        """The published example registers an address and polls; whoever waits is answered, nobody is called."""
        calls: list[web.Request] = []

        async def handler(request: web.Request) -> web.StreamResponse:
            calls.append(request)
            return web.Response(status=500)

        async with serving(handler) as url:
            host: Caller = await market.anyone.register(endpoint_url=url)
            poll = asyncio.create_task(host.next_job())
            channel = market.core.channels[bytes.fromhex(host.host_id[5:])]
            while not channel.polls:  # type: ignore[attr-defined]
                await asyncio.sleep(0)
            bought = await market.buyer.run()
            given = await poll
            assert given.body["job_id"] == bought.body["job_id"]
            await host.complete(given.body["job_id"], tokens=["x"])

        assert calls == []
        stream = await market.buyer.get(f"/jobs/{bought.body['job_id']}/stream")
        assert events(stream.text)[-1] == (None, "[DONE]")
