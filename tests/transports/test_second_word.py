"""A host's word that the request is bad, by every way that hosts are reached: the next host is asked, and the buyer of
a stream or of a whole answer gets what that one says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from comptoir.ledger import audit
from comptoir.link import Frame, ModelOffer
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish
from tests.dialects.infrintia.caller import LLAMA
from tests.dialects.infrintia.conftest import Market
from tests.transports.native_host import answering, b64, chat, line, register
from tests.transports.test_push import serving

BAD = {
    "code": "bad_request",
    "message": "no",
    "fault": "buyer",
    "status": 400,
    "body": b64('{"error":{"message":"no"}}'),
}
FREE_IN = {"token_in": 0, "token_out": 100_000_000}
WAYS = ("link", "push", "poll", "poll as published")


@pytest.fixture
def settings() -> dict[str, Any]:
    """Pushed hosts are neighbours."""
    return {"allow_private_endpoint_urls": True}


class Refuser:
    """An engine that refuses every request."""

    name = "refuser"

    async def start(self) -> None:
        """Nothing to load."""

    async def models(self) -> list[ModelOffer]:
        return [ModelOffer(name=LLAMA, kinds=["chat"], context_tokens=1_000_000)]

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        raise EngineError("bad_request", "no", fault="buyer", status=400)
        yield Finish("stop")

    async def close(self) -> None:
        """Nothing to free."""


async def polls(market: Market, way: str) -> None:
    """Refuse the next job as a host that polls."""
    if way == "poll":
        host = await register(market)
        job = await host.next()
        await host.tell(job, "fail", **BAD)
    else:
        published = await market.anyone.register()
        given = (await published.next_job()).body
        await published.fail(given["job_id"], fault="buyer")


@asynccontextmanager
async def refusing(market: Market, way: str) -> AsyncIterator[None]:
    """Have a host that calls the next request bad, and is the only free one."""
    if way == "link":
        async with market.post.worker(engine="tests.transports.test_second_word:Refuser", prices=FREE_IN):
            yield
    elif way == "push":
        async with serving(answering(lambda job: [line(job, "fail", **BAD) + b"\n"])) as url:
            await register(market, endpoint_url=url)
            yield
    else:
        task = asyncio.create_task(polls(market, way))
        async with asyncio.timeout(5):
            while not market.core.fleet.by_status()["active"] or not any(h.slots.free for h in market.core.fleet):
                await asyncio.sleep(0.001)
        yield
        await task


async def refused(market: Market) -> None:
    """Wait until the first host has refused the job."""
    async with asyncio.timeout(5):
        while not any(job.accusers for job in market.core.jobs.live.all()):
            await asyncio.sleep(0.001)


class TestTheNextHostIsAsked:
    @pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
    @pytest.mark.parametrize("way", WAYS)
    async def test_and_its_answer_is_the_buyers(self, market: Market, way: str, stream: bool) -> None:
        async with refusing(market, way):
            (liar,) = market.core.fleet
            honest = await register(market)
            asked = asyncio.create_task(chat(market, stream=stream))
            await refused(market)
            job = await honest.next()
            await honest.frames(job, 0, "good", " answer")
            await honest.done(job, 2)
            answer = await asked

            assert answer.status == 200 and "good" in answer.text
            assert (liar.jobs_done, liar.jobs_failed) == (0, 1)
            assert await audit(market.core.db) == []

    @pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
    @pytest.mark.parametrize("way", WAYS)
    async def test_and_if_it_says_the_same_the_buyer_has_his_error(
        self, market: Market, way: str, stream: bool
    ) -> None:
        async with refusing(market, way):
            (first,) = market.core.fleet
            second = await register(market)
            asked = asyncio.create_task(chat(market, stream=stream))
            await refused(market)
            await second.tell(await second.next(), "fail", **BAD)
            answer = await asked

            assert (answer.status, answer.body["error"]["message"]) == (400, "no")
            assert [host.jobs_failed for host in (first, market.core.fleet.get(second.id))] == [0, 0]
            assert (await market.buyer.get("/users/me")).body["credits"] == 100.0
