"""Hosts with an address in the native shape: the job is posted as it is, and any kind of answer and failure is
understood."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from comptoir.jobs import Fault
from comptoir.ledger import audit
from tests.dialects.infrintia.caller import LLAMA
from tests.dialects.infrintia.conftest import Market
from tests.transports.native_host import OFFER, Handler, NativeHost, answering, b64, bought, chat, items, line, register
from tests.transports.test_push import serving

SSE, LINES = "text/event-stream", "application/x-ndjson"
Make = Callable[[Any], list[bytes]]


@pytest.fixture
def settings() -> dict[str, Any]:
    """The hosts of these tests are neighbours."""
    return {"allow_private_endpoint_urls": True, "push_timeout_s": 0.5}


def frames(job: Any, seq: int, *texts: str) -> bytes:
    return line(job, "frames", seq=seq, items=items(*texts))


def done(job: Any, end_seq: int, **fields: Any) -> bytes:
    return line(job, "done", end_seq=end_seq, **fields)


async def bought_from(market: Market, handler: Handler, **fields: Any) -> tuple[dict[str, Any], NativeHost]:
    """Buy one answer from a host that is served by *handler*; return the ended job and the host."""
    async with serving(handler) as url:
        host = await register(market, endpoint_url=url, **fields)
        _, end = await bought(market)
        return await end, host


class TestWhatIsPosted:
    async def test_the_host_gets_the_job_whole(self, market: Market) -> None:
        got: list[Any] = []
        handler = answering(lambda job: [frames(job, 0, "ok") + b"\n" + done(job, 1) + b"\n"], got=got)
        async with serving(handler) as url:
            await register(market, endpoint_url=url)
            answer = await chat(market, tools=[], top_p=0.5)

        job, headers = got[0]
        assert answer.body["choices"][0]["message"]["content"] == "ok"
        assert sorted(job) == sorted(
            (
                "lease", "job_id", "kind", "model", "body", "deadline_ms", "left_ms", "start_seq", "prefix", "chain",
                "max_tokens",
            )
        )  # fmt: skip
        assert json.loads(base64.b64decode(job["body"]))["top_p"] == 0.5
        assert (job["kind"], job["model"], job["max_tokens"]) == ("chat", LLAMA, 64)
        assert (headers["accept"], headers["content-type"]) == (f"{LINES}, {SSE}", "application/json")


ANSWERS: list[tuple[str, Make]] = [
    (LINES, lambda job: [frames(job, 0, "a", " b") + b"\n" + done(job, 2) + b"\n"]),
    (LINES, lambda job: [frames(job, 0, "a") + b"\n" + frames(job, 1, " b") + b"\n\n", done(job, 2)]),
    (LINES, lambda job: [(one := frames(job, 0, "a"))[:9], one[9:] + b"\r\n" + frames(job, 1, " b"), b"\n" + done(job, 2)]),
    (LINES, lambda job: [frames(job, 0, "a") + b"\n" + frames(job, 0, "a", " b") + b"\n" + done(job, 2)]),
    (SSE, lambda job: [b": hello\n\ndata: " + frames(job, 0, "a", " b") + b"\n\ndata: " + done(job, 2) + b"\n\n"]),
    (SSE, lambda job: [b"data:" + frames(job, 0, "a") + b"\n\ndata:", frames(job, 1, " b"), b"\n\ndata:" + done(job, 2) + b"\n"]),
]  # fmt: skip
"""Media type and network writes: whole, split inside a line, repeated, with comments."""


class TestAnswers:
    @pytest.mark.parametrize(("media", "make"), ANSWERS)
    async def test_lines_are_understood(self, market: Market, media: str, make: Make) -> None:
        shown, host = await bought_from(market, answering(make, media=media))

        assert (shown["status"], shown["output_text"], shown["tokens"]) == ("completed", "a b", 2)
        assert market.core.fleet.get(host.id).jobs_done == 1
        assert await audit(market.core.db) == []

    @pytest.mark.parametrize("status", [202, 204])
    async def test_a_host_that_accepts_brings_its_frames_itself(self, market: Market, status: int) -> None:
        got: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def handler(request: web.Request) -> web.StreamResponse:
            got.set_result(await request.json())
            return web.Response(status=status)

        async with serving(handler) as url:
            host = await register(market, endpoint_url=url)
            _, end = await bought(market)
            job = await got
            assert (await host.frames(job, 0, "a", "b")).body == {"next_seq": 2}
            assert (await host.done(job, 2)).body["earned_uusd"] == 176

        assert (await end)["output_text"] == "ab"

    async def test_a_host_that_asks_is_not_called(self, market: Market) -> None:
        host = await register(market, endpoint_url="http://127.0.0.1:1/never")
        asking = asyncio.create_task(host.next())
        async with asyncio.timeout(5):
            while not len(market.core.channels[host.id].polls):  # type: ignore[attr-defined]
                await asyncio.sleep(0.001)
        _, end = await bought(market)
        job = await asking
        await host.frames(job, 0, "a")
        await host.done(job, 1)

        assert (await end)["output_text"] == "a"

    async def test_a_line_that_this_coordinator_never_opened_is_opened_by_a_sign_of_life(self, market: Market) -> None:
        """As where a host registered at another coordinator, and comes here by way of a balancer."""
        handler = answering(lambda job: [frames(job, 0, "a") + b"\n" + done(job, 1)])
        async with serving(handler) as url:
            host = await register(market, endpoint_url=url)
            del market.core.channels[host.id]
            assert (await host.caller.post("/house/host/pulse", {})).status == 200
            _, end = await bought(market)

            assert (await end)["output_text"] == "a"


FAILURES: list[tuple[str, Make, str]] = [
    (LINES, lambda job: [frames(job, 0, "a") + b"\n"], "hung up"),
    (LINES, lambda job: [frames(job, 0, "a")], "hung up"),
    (SSE, lambda job: [b"data: " + frames(job, 0, "a") + b"\n\n"], "hung up"),
    (LINES, lambda job: [], "hung up"),
    (LINES, lambda job: [b"nonsense\n"], "not understood"),
    (LINES, lambda job: [b'{"type":"thought","lease":"x"}\n'], "not understood"),
    (LINES, lambda job: [frames(job, 1, "b") + b"\n"], "leave a gap"),
    (LINES, lambda job: [frames(job, 0, "a") + b"\n" + frames(job, 3, "b") + b"\n"], "leave a gap"),
    (LINES, lambda job: [frames(job, 0, "a") + b"\n" + done(job, 3) + b"\n"], "ended after frame 3"),
    (LINES, lambda job: [frames({"lease": "att_" + "0" * 32}, 0, "a") + b"\n"], "another lease"),
    (LINES, lambda job: [b"x" * ((1 << 20) + 9)], "longer than"),
    (LINES, lambda job: [frames(job, 0, *["x"] * 300) + b"\n"], "300 tokens"),
    (
        LINES,
        lambda job: [line(job, "frames", seq=0, items=[{"text": "a", "extra": b64("[]")}]) + b"\n"],
        "can't be passed on",
    ),
    ("application/json", lambda job: [b"{}"], "are understood"),
]


class TestFailures:
    @pytest.mark.parametrize(("media", "make", "says"), FAILURES)
    async def test_a_bad_answer_is_the_hosts_fault(self, market: Market, media: str, make: Make, says: str) -> None:
        shown, host = await bought_from(market, answering(make, media=media))

        assert (shown["status"], shown["error"]["code"]) == ("failed", "push_failed")
        assert says in shown["error"]["message"]
        kept = market.core.fleet.get(host.id)
        assert (kept.jobs_done, kept.jobs_failed) == (0, 1)

    @pytest.mark.parametrize(
        ("status", "fault"),
        [(500, Fault.HOST), (404, Fault.HOST), (302, Fault.HOST), (429, Fault.CAPACITY), (503, Fault.CAPACITY)],
    )
    async def test_fault_goes_by_status(self, market: Market, status: int, fault: Fault) -> None:
        async def handler(request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, headers={"location": "http://127.0.0.1:1/", "retry-after": "7"})

        shown, host = await bought_from(market, handler)

        row = await market.core.jobs.get(bytes.fromhex(shown["job_id"][4:]))
        assert (row.state, row.fault, shown["credits_used"]) == ("failed", fault, 0)
        assert market.core.fleet.get(host.id).jobs_failed == (fault == Fault.HOST)

    @pytest.mark.parametrize("fault", [Fault.BUYER, Fault.HOST, Fault.CAPACITY, Fault.COORDINATOR])
    async def test_a_host_may_say_itself_what_went_wrong(self, market: Market, fault: Fault) -> None:
        def make(job: Any) -> list[bytes]:
            words = b64('{"error":{"message":"no"}}')
            return [line(job, "fail", code="mine", message="no", fault=str(fault), status=400, body=words) + b"\n"]

        shown, _ = await bought_from(market, answering(make))

        # Whether the coordinator is at fault is for the coordinator to know.
        believed = Fault.HOST if fault is Fault.COORDINATOR else fault
        row = await market.core.jobs.get(bytes.fromhex(shown["job_id"][4:]))
        assert (row.state, row.fault, row.error_code) == ("failed", believed, "mine")

    async def test_another_host_goes_on_where_one_hung_up(self, market: Market) -> None:
        """Half of it was pushed; the next host polls, and goes on from there."""
        async with serving(answering(lambda job: [frames(job, 0, "one", " two") + b"\n"])) as url:
            dies = await register(market, endpoint_url=url, models=[OFFER | {"price_out_uusd_per_mtok": 10_000_000}])
            goes_on = await register(market, models=[OFFER | {"price_out_uusd_per_mtok": 10_000_000}])
            asking = asyncio.create_task(goes_on.next())
            market.core.fleet.drain(goes_on.id)
            _, end = await bought(market)
            async with asyncio.timeout(5):
                while not market.core.fleet.get(dies.id).slots.running:
                    await asyncio.sleep(0.001)
            market.core.fleet.resume(goes_on.id)
            job = await asking
            assert (job["start_seq"], job["prefix"]) == (2, items("one", " two"))
            await goes_on.frames(job, 2, " three")
            await goes_on.done(job, 3)

        shown = await end
        assert (shown["status"], shown["output_text"]) == ("completed", "one two three")
        assert await audit(market.core.db) == []


class TestPay:
    async def test_is_for_what_came_and_not_for_what_is_claimed(self, market: Market) -> None:
        claim = {"prompt_tokens": 2**31 - 1, "completion_tokens": 500}

        def nothing(job: Any) -> list[bytes]:
            empty = line(job, "frames", seq=0, items=[{"text": "", "tokens": 64}])
            return [empty + b"\n" + done(job, 1, usage=claim) + b"\n"]

        async with serving(answering(nothing)) as url:
            host = await register(market, endpoint_url=url)
            answer = await chat(market, max_tokens=64)

        assert (answer.status, answer.headers["x-comptoir-cost-uusd"]) == (200, "0")
        assert answer.body["usage"]["completion_tokens"] == 0
        assert answer.body["usage"]["prompt_tokens"] < 2_000
        assert market.core.fleet.get(host.id).jobs_failed == 1
        assert await audit(market.core.db) == []
