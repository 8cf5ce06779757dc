"""Held polls: woken by a job, 204 at the end, no job lost to a poll that hung up, none given twice."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from comptoir.app import open_core, running
from comptoir.dispatch import Core
from comptoir.dispatch.drain import Shutdown
from comptoir.dispatch.submit import Order, submit
from comptoir.hosts import Host
from comptoir.jobs import JobState
from comptoir.ledger import audit
from comptoir.settings import Settings
from comptoir.transports.poll import POLLS_PER_HOST_MAX, PollChannel
from tests.at_once import at_once
from tests.dialects.infrintia.caller import LLAMA, Caller
from tests.dialects.infrintia.conftest import Market, market_of
from tests.post import QUICK, open_post


def record_of(market: Market, host: Caller) -> Host:
    """Return the host as the fleet sees it."""
    return market.core.fleet.get(bytes.fromhex(host.host_id.removeprefix("host_")))


async def until_waiting(market: Market, host: Caller, *, polls: int = 1) -> None:
    """Wait until the host holds *polls* requests open."""
    async with asyncio.timeout(5):
        while record_of(market, host).slots.waiting != polls:
            await asyncio.sleep(0.001)


class TestNextJob:
    async def test_a_held_poll_is_woken_by_the_job(self, market: Market) -> None:
        host = await market.anyone.register()
        for _ in range(5):
            poll = asyncio.create_task(host.next_job())
            await until_waiting(market, host)
            bought = await market.buyer.run()
            async with at_once(ms=50):
                given = await poll
            assert given.status == 200
            assert given.body["job_id"] == bought.body["job_id"]

    async def test_a_waiting_job_is_given_at_once(self, market: Market) -> None:
        host = await market.anyone.register()
        bought = await market.buyer.run()

        given = await host.next_job(wait_s=0)

        assert given.body["job_id"] == bought.body["job_id"]

    async def test_without_a_job_it_ends_empty(self, market: Market) -> None:
        host = await market.anyone.register()

        given = await host.next_job(wait_s=0.05)

        assert (given.status, given.text) == (204, "")
        assert record_of(market, host).slots.waiting == 0

    async def test_the_lease_is_durable_when_the_answer_leaves(self, market: Market) -> None:
        host = await market.anyone.register()
        await market.buyer.run()
        job_id = (await host.next_job()).body["job_id"]

        row = await market.core.jobs.get(bytes.fromhex(job_id[4:]))

        assert (row.state, row.host_id) == (JobState.RUNNING, record_of(market, host).id)

    async def test_a_host_is_free_only_while_it_polls(self, market: Market) -> None:
        host = await market.anyone.register()
        poll = asyncio.create_task(host.next_job(wait_s=0.2))
        await until_waiting(market, host)
        assert record_of(market, host).slots.free == 1
        await poll

        bought = await market.buyer.run()

        assert record_of(market, host).slots.free == 0
        shown = (await market.buyer.get(f"/jobs/{bought.body['job_id']}")).body
        assert (shown["status"], shown["jobs_before"]) == ("queued", 0)

    async def test_the_oldest_poll_gets_the_job(self, market: Market) -> None:
        host = await market.anyone.register()
        first = asyncio.create_task(host.next_job())
        await until_waiting(market, host)
        second = asyncio.create_task(host.next_job(wait_s=1))
        await until_waiting(market, host, polls=2)
        await market.buyer.run()

        done, _ = await asyncio.wait((first, second), return_when=asyncio.FIRST_COMPLETED)

        assert done == {first}
        await market.buyer.run()
        assert (await second).status == 200

    async def test_jobs_bought_through_another_dialect_come_as_text(self, market: Market) -> None:
        """A conversation is flattened; temperature and length come from the body."""
        host = await market.anyone.register()
        body = (
            b'{"model":"%b","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":'
            b'[{"type":"text","text":"Hi"},{"type":"text","text":"there"}]}],"max_tokens":9,"temperature":0.25}'
        )
        await submit_body(market, body % LLAMA.encode(), kind="chat", max_tokens=9)
        given = (await host.next_job()).body

        assert given["input_text"] == "system: Be brief.\n\nuser: Hi\nthere"
        assert (given["max_tokens"], given["temperature"]) == (9, 0.25)

    async def test_a_completion_comes_as_its_prompt(self, market: Market) -> None:
        host = await market.anyone.register()
        await submit_body(market, b'{"model":"m","prompt":"Once upon"}', kind="completion", max_tokens=16)
        given = (await host.next_job()).body

        assert (given["input_text"], given["max_tokens"], given["temperature"]) == ("Once upon", 16, 1.0)

    async def test_too_many_polls_of_one_host_are_refused(self, market: Market) -> None:
        host = await market.anyone.register()
        channel = PollChannel(market.core, record_of(market, host).id)
        market.core.channels[record_of(market, host).id] = channel
        channel._polls.extend([object()] * POLLS_PER_HOST_MAX)  # type: ignore[list-item]

        refused = await host.next_job(wait_s=0)

        channel._polls.clear()
        assert refused.status == 429
        assert refused.headers["retry-after"] == "1"

    async def test_a_draining_coordinator_lets_polls_go(self, market: Market) -> None:
        host = await market.anyone.register()
        poll = asyncio.create_task(host.next_job())
        await until_waiting(market, host)

        market.core.state(Shutdown).draining = True

        assert (await poll).status == 204
        assert (await host.next_job()).status == 503

    async def test_a_busy_heart_makes_a_silent_host_active_again(self, market: Market) -> None:
        host = await market.anyone.register()
        record_of(market, host).seen_s -= 1000
        market.core.fleet.silent()
        assert record_of(market, host).status == "offline"

        beat = await host.post("/hosts/heartbeat", {"host_id": host.host_id, "gpu_utilization": 0.5})

        assert beat.body == {"status": "acknowledged"}
        assert record_of(market, host).status == "active"
        assert record_of(market, host).gpu_utilization == 0.5


async def submit_body(market: Market, body: bytes, *, kind: str, max_tokens: int) -> None:
    """Submit an order as another dialect would."""
    await submit(market.core, Order(market.post.buyer_id, "openai", kind, LLAMA, body, max_tokens, True))


class TestOpenAiBuyers:
    async def test_they_are_served_by_polling_hosts(self, market: Market) -> None:
        """One market: a chat bought through the OpenAI API is answered by a host that speaks Infrintia only."""
        host = await market.anyone.register()
        body = {"model": LLAMA, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
        asking = asyncio.create_task(market.buyer.post("/v1/chat/completions", body, content_type="application/json"))
        given = (await host.next_job()).body
        await host.chunk(given["job_id"], "Hel", "lo", seq=0)
        await host.complete(given["job_id"], usage={"prompt_tokens": 1, "completion_tokens": 2})

        answer = await asking

        assert (given["input_text"], given["max_tokens"]) == ("Hi", 8)
        assert answer.status == 200
        assert answer.body["choices"][0]["message"]["content"] == "Hello"
        assert answer.body["usage"]["completion_tokens"] == 2

    async def test_a_buyer_who_hangs_up_takes_the_lease_with_him(self, market: Market) -> None:
        host = await market.anyone.register()
        body = {"model": LLAMA, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
        asking = asyncio.create_task(market.buyer.post("/v1/chat/completions", body))
        given = (await host.next_job()).body
        asking.cancel()

        async with asyncio.timeout(5):
            while (await host.chunk(given["job_id"], "x", seq=0)).status == 200:
                await asyncio.sleep(0.01)

        assert (await host.chunk(given["job_id"], "x", seq=0)).status == 409


class TestHangUp:
    async def test_a_poll_that_hung_up_takes_no_job(self, market: Market) -> None:
        host = await market.anyone.register()
        poll = asyncio.create_task(host.next_job())
        await until_waiting(market, host)
        poll.cancel()
        await until_waiting(market, host, polls=0)

        bought = await market.buyer.run()
        given = await host.next_job()

        assert given.body["job_id"] == bought.body["job_id"]
        assert record_of(market, host).jobs_lost == 0

    async def test_a_job_promised_to_a_poll_that_goes_is_given_to_the_next(self, market: Market) -> None:
        """The poll ends between reservation and commit: nobody is blamed and the same host may have the job."""
        host = await market.anyone.register()
        poll = asyncio.create_task(host.next_job())
        await until_waiting(market, host)
        channel = market.core.channels[record_of(market, host).id]
        assert isinstance(channel, PollChannel)
        submitting = asyncio.create_task(market.buyer.run())
        while record_of(market, host).slots.waiting:
            await asyncio.sleep(0)
        channel._hang_up(channel._polls[0])

        assert (await poll).status == 204
        bought = await submitting
        given = await host.next_job()

        assert given.body["job_id"] == bought.body["job_id"]
        assert record_of(market, host).jobs_lost == 0

    async def test_a_poll_whose_promised_job_was_cancelled_is_counted_again(self, market: Market) -> None:
        host = await market.anyone.register()
        poll = asyncio.create_task(host.next_job())
        await until_waiting(market, host)
        fleet, id = market.core.fleet, record_of(market, host).id
        fleet.reserve(id, LLAMA)
        fleet.release(id)
        assert record_of(market, host).slots.free == 0

        bought = await market.buyer.run()

        assert (await asyncio.wait_for(poll, 3)).body["job_id"] == bought.body["job_id"]

    async def test_a_silent_host_loses_its_lease_and_reputation(self, market: Market) -> None:
        silent, other = await market.anyone.register(), await market.anyone.register()
        await market.buyer.run()
        job_id = (await silent.next_job()).body["job_id"]
        job = market.core.jobs.live.get(bytes.fromhex(job_id[4:]))
        assert job is not None and job.lease is not None
        job.lease.touched_s -= 1000

        given = await other.next_job()

        assert given.body["job_id"] == job_id
        assert record_of(market, silent).jobs_lost == 1
        assert (await silent.chunk(job_id, "late")).status == 409


class TestTwoPollers:
    @pytest.mark.parametrize("settings", [{"requests_per_minute_per_key": 100_000, "signup_credits_uusd": 10**9}])
    async def test_no_job_is_ever_given_twice(self, market: Market) -> None:
        """500 jobs, two hosts of eight pollers each, all at once; every job is answered once and the books agree."""
        hosts = [await market.anyone.register(slots=8) for _ in range(2)]
        left, given = 500, list[str]()

        async def buy(count: int) -> None:
            for _ in range(count):
                assert (await market.buyer.run(max_tokens=4)).status == 202

        async def work(host: Caller) -> None:
            nonlocal left
            while left > 0:
                answer = await host.next_job(wait_s=0.2)
                if answer.status == 204:
                    continue
                given.append(answer.body["job_id"])
                left -= 1
                assert (await host.complete(answer.body["job_id"], tokens=["a", "b"])).status == 200

        await asyncio.gather(*(buy(50) for _ in range(10)), *(work(host) for host in hosts for _ in range(8)))

        assert len(given) == len(set(given)) == 500
        account = await market.core.ledger.account(market.post.buyer_id)
        assert (account.held_uusd, account.balance_uusd) == (0, 10**9 - 500 * 2 * 100)
        assert await audit(market.core.db) == []


class TestRestart:
    async def test_queued_and_polled_jobs_survive_it(self, tmp_path: Path) -> None:
        """One job waits, one is with a host when the coordinator goes: both are given out after the restart."""
        async with open_post(tmp_path) as post, aiohttp.ClientSession() as session:
            market = market_of(post, session)
            host = await market.anyone.register()
            bought = [(await market.buyer.run()).body["job_id"] for _ in range(2)]
            assert (await host.next_job()).body["job_id"] == bought[0]
        async with reopened(tmp_path) as (url, core), aiohttp.ClientSession() as session:
            again = Caller(session, url, host.key, host.host_id)
            buyer = Caller(session, url, market.buyer.key)
            given = [(await again.next_job()).body["job_id"] for _ in range(2)]
            assert sorted(given) == sorted(bought)
            for job_id in bought:
                assert (await again.complete(job_id, tokens=["done"])).status == 200
                assert (await buyer.get(f"/jobs/{job_id}")).body["output_text"] == "done"
            assert await audit(core.db) == []


@contextlib.asynccontextmanager
async def reopened(folder: Path) -> AsyncIterator[tuple[str, Core]]:
    """Open the post's data again, without the people a new post gets."""
    settings = Settings(data=str(folder / "data"), port=0, **QUICK)
    async with open_core(settings) as core, running(core) as url:
        yield url, core
