"""An answer that breaks off, in every way of buying one: nothing received, nothing paid.

What a buyer was sent piece by piece, or can read, is paid as `charge_for_broken_answers` says. An answer that is given
whole or not at all is made again elsewhere, and is free if that can't be.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import ClientPayloadError

from comptoir.ledger import audit
from tests.dialects.infrintia.caller import LLAMA, Answer
from tests.dialects.infrintia.conftest import Market
from tests.dispatch.acting import retire
from tests.transports.native_host import OFFER, b64, chat, register

Buy = Callable[[Market], Awaitable[Any]]

TEXT = {"model": LLAMA, "prompt": "Once", "max_tokens": 64}
PIECES_UUSD = 200
"""Of two tokens."""

RUN_UUSD = 1_000
CONTAINERS = {"kinds": ["container"], "container": {}, "price_out_uusd_per_mtok": RUN_UUSD * 1_000_000}


async def followed(market: Market) -> Answer:
    job_id = (await market.buyer.run()).body["job_id"]
    return await market.buyer.get(f"/jobs/{job_id}/stream")


async def polled(market: Market) -> Answer:
    return await market.buyer.run()


async def native(market: Market) -> Answer:
    asked = {"messages": [{"role": "user", "content": "Hi"}]}
    return await market.buyer.post("/house/jobs", {"kind": "chat", "model": LLAMA, "body": asked, "output_max": 64})


async def native_followed(market: Market) -> Answer:
    job_id = (await native(market)).body["id"]
    return await market.buyer.get(f"/house/jobs/{job_id}/frames")


WAYS: list[tuple[str, Buy, int]] = [
    ("openai chat, streamed", lambda market: chat(market, stream=True), PIECES_UUSD),
    ("openai chat, whole", chat, 0),
    (
        "openai chat, whole, to be asked for again",
        lambda market: market.buyer.post(
            "/v1/chat/completions",
            {"model": LLAMA, "messages": [{"role": "user", "content": "Hi"}]},
            idempotency_key="again",
        ),
        0,
    ),
    (
        "openai completion, streamed",
        lambda market: market.buyer.post("/v1/completions", TEXT | {"stream": True}),
        PIECES_UUSD,
    ),
    ("openai completion, whole", lambda market: market.buyer.post("/v1/completions", TEXT), 0),
    ("infrintia, followed", followed, PIECES_UUSD),
    ("infrintia, to be read later", polled, PIECES_UUSD),
    ("native, followed", native_followed, PIECES_UUSD),
    ("native, to be read later", native, PIECES_UUSD),
]


@pytest.mark.asyncio(loop_scope="module")
class TestEveryWay:
    @pytest.mark.parametrize(("buy", "cost"), [row[1:] for row in WAYS], ids=[row[0] for row in WAYS])
    async def test_what_was_received_is_paid(self, shared: Market, buy: Buy, cost: int) -> None:
        host = await register(shared)
        asked = asyncio.ensure_future(buy(shared))
        job = await host.next()
        await host.frames(job, 0, "one", " two")

        await host.tell(job, "fail", code="oom", message="CUDA out of memory")

        await asked
        row = await shared.core.jobs.get(bytes.fromhex(job["job_id"][4:]))
        assert (row.state, row.cost_uusd) == ("failed", cost)
        account = await shared.core.ledger.account(host.id)
        assert account.balance_uusd == cost - cost * 12 // 100
        assert await audit(shared.core.db) == []
        await retire(shared.core, host.id)

    @pytest.mark.parametrize(("path", "cost"), [("/api/jobs", RUN_UUSD), ("/api/jobs/stream", RUN_UUSD)])
    async def test_of_a_chain_the_containers_that_were_done(self, shared: Market, path: str, cost: int) -> None:
        """Their outputs can be read, of a stream too; of the last one there were pieces, and no run."""
        hosts = [await register(shared, models=[{"name": name} | CONTAINERS]) for name in ("a", "b")]
        asked = asyncio.ensure_future(shared.buyer.post(path, {"containers": ["a", "b"], "data": {}}))
        first = await hosts[0].next()
        output = {"text": '{"y":2}', "tokens": 1, "extra": b64('{"finish_reason":"stop"}')}
        await hosts[0].tell(first, "frames", seq=0, items=[output])
        await hosts[0].done(first, 1, usage={"completion_tokens": 1})
        second = await hosts[1].next()
        await hosts[1].tell(second, "frames", seq=1, items=[{"text": "half of it", "tokens": 1}])

        await hosts[1].tell(second, "fail", code="oom")

        with suppress(ClientPayloadError):  # How Infernet's clients learn that a stream is incomplete.
            await asked
        row = await shared.core.jobs.get(bytes.fromhex(first["job_id"][4:]))
        assert (row.state, row.cost_uusd) == ("failed", cost)
        for host in hosts:
            await retire(shared.core, host.id)


@pytest.mark.asyncio(loop_scope="module")
class TestMadeAgain:
    @pytest.mark.parametrize("stream", [False, True])
    async def test_where_no_host_can_go_on_with_it(self, shared: Market, stream: bool) -> None:
        """Of a whole answer nobody has seen the beginning, so that it need not be the same."""
        first = await register(shared)
        asked = asyncio.ensure_future(chat(shared, stream=stream))
        begun = await first.next()
        await first.frames(begun, 0, "one", " two")
        second = await register(shared, models=[OFFER | {"can_continue": False}])

        await first.tell(begun, "fail", code="oom")

        job = await second.next(wait_s=0.0 if stream else 5.0)
        row = await shared.core.jobs.get(bytes.fromhex(begun["job_id"][4:]))
        if stream:
            assert (job, row.state, row.cost_uusd) == (None, "failed", PIECES_UUSD)
        else:
            assert (job["job_id"], job["start_seq"], job["prefix"]) == (begun["job_id"], 0, [])
            await second.frames(job, 0, "all", " of", " it")
            await second.done(job, 3)
            answer = await asked
            assert answer.body["choices"][0]["message"]["content"] == "all of it"
            assert answer.headers["x-comptoir-cost-uusd"] == "300"
            assert (await shared.core.ledger.account(first.id)).balance_uusd == 0
        await asked
        for host in (first, second):
            await retire(shared.core, host.id)
        assert await audit(shared.core.db) == []
