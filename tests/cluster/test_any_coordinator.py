"""Any coordinator takes any request, any host's link, any reader."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from comptoir.cluster.messages import Announcement
from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.meters import Meters
from comptoir.dispatch.onboard import add_host
from comptoir.dispatch.submit import Order, submit
from comptoir.gateway import stop
from comptoir.hosts import LINK, OFFLINE
from comptoir.hosts.testing import make_new_host, make_offer
from comptoir.jobs import JobFinished, JobState, LiveJob, Reader
from comptoir.kit.ids import public
from comptoir.receipts import read_registry, verify
from tests.cluster.posts import Posts, open_posts, peers_of
from tests.post import PRICE, Post
from tests.redis_server import RedisServer

TOKENS = 20


@pytest.fixture
async def posts(tmp_path: Path, postgres_address: str, redis_server: RedisServer) -> AsyncIterator[Posts]:
    async with open_posts(tmp_path, database=postgres_address, bus=redis_server.url) as opened:
        yield opened


def order(post: Post, *, tokens: int = TOKENS, detached: bool = True) -> Order:
    body = b'{"model":"trivial","messages":[{"role":"user","content":"hi"}],"max_tokens":%d}' % tokens
    return Order(post.buyer_id, "infrintia", "chat", "trivial", body, tokens, detached)


def open_ended(post: Post, *, step: int = TOKENS) -> Order:
    """Return an order without a bound, which begins with *step* tokens."""
    body = b'{"model":"trivial","messages":[{"role":"user","content":"hi"}]}'
    return Order(post.buyer_id, "infrintia", "chat", "trivial", body, step, False, open_ended=True)


async def read(job: LiveJob) -> str:
    """Read a job to its end."""
    reader, text = Reader(job), ""
    while (frames := await reader.next()) is not None:
        text += "".join(frame.text for frame in frames)
    return text


@contextlib.asynccontextmanager
async def calling(post: Post, *, key: str = "") -> AsyncIterator[aiohttp.ClientSession]:
    """A client of one coordinator."""
    headers = {"authorization": f"Bearer {key or post.buyer_key}"}
    async with aiohttp.ClientSession(post.url, headers=headers) as session:
        yield session


async def events(post: Post, job_id: str, *, after: int | None = None) -> list[str]:
    """Read a job's event stream at one coordinator to its end; the lines that are not empty."""
    headers = {} if after is None else {"last-event-id": str(after)}
    async with calling(post) as session, session.get(f"/jobs/{job_id}/stream", headers=headers) as response:
        assert response.status == 200
        return [line for line in (await response.text()).split("\n") if line]


class TestHostElsewhere:
    async def test_a_buyer_here_is_answered_by_a_host_there(self, posts: Posts) -> None:
        async with posts[1].worker():
            await posts.until_seen(posts[0], free=8)
            job = await submit(posts[0].core, order(posts[0], detached=False))

            assert await read(job) == " tok" * TOKENS
            assert job.state == JobState.COMPLETED
            assert job.cost_uusd == TOKENS * 100 + 1
            assert job.usage.completion_tokens == TOKENS
        account = await posts[0].core.ledger.account(posts[0].buyer_id)
        assert (account.balance_uusd, account.held_uusd) == (1_000_000 - job.cost_uusd, 0)
        registry = read_registry(await posts[0].core.receipts.registry())
        assert verify(await posts[1].core.receipts.envelope_of(job.id), registry).ok

    async def test_an_answer_without_a_bound_grows_where_its_host_is(self, posts: Posts) -> None:
        async with posts[1].worker(options={"tokens": 10 * TOKENS}):
            await posts.until_seen(posts[0], free=8)
            job = await submit(posts[0].core, open_ended(posts[0]))

            assert await read(job) == " tok" * 10 * TOKENS
            assert (job.finish_reason, job.cost_uusd) == ("stop", 10 * TOKENS * 100 + 1)

    async def test_where_credit_ended_it_that_is_said_here_too(self, posts: Posts) -> None:
        async with posts[1].worker(options={"tokens": 20_000}):
            await posts.until_seen(posts[0], free=8)
            job = await submit(posts[0].core, open_ended(posts[0], step=4_000))

            text = await read(job)
        assert (job.finish_reason, text) == ("length", " tok" * job.usage.completion_tokens)
        assert 9_990 < job.usage.completion_tokens < 10_000
        assert json.loads(job.usage.details) == {"limited_by": "credit"}

    async def test_nothing_of_it_is_left_where_it_was_bought(self, posts: Posts) -> None:
        async with posts[1].worker():
            await posts.until_seen(posts[0], free=8)
            jobs = [await submit(posts[0].core, order(posts[0])) for _ in range(30)]
            for job in jobs:
                assert await read(job) == " tok" * TOKENS
        for core in posts.cores:
            await posts.until(lambda core=core: not core.state(Buyers).in_flight.counts())
            assert (len(core.jobs.live), core.jobs.live.leased, len(core.jobs.queue)) == (0, 0, 0)
            assert core.jobs.live.mirrors == {}

    async def test_the_market_shows_hosts_of_all(self, posts: Posts) -> None:
        async with posts[1].worker():
            await posts.until_seen(posts[0], free=8)
            async with calling(posts[0]) as session, session.get("/v1/models") as response:
                models = await response.json()

            assert [model["id"] for model in models["data"]] == ["trivial"]
        await posts.until(lambda: not posts[0].core.fleet.models())

    async def test_more_than_all_slots_wait_and_are_all_answered(self, posts: Posts) -> None:
        async with posts[1].worker(slots=2, options={"per_s": 2000.0}):
            await posts.until_seen(posts[0], free=2)
            jobs = await asyncio.gather(*(submit(posts[0].core, order(posts[0])) for _ in range(40)))

            texts = await asyncio.wait_for(asyncio.gather(*map(read, jobs)), 30)

            assert texts == [" tok" * TOKENS] * 40

    async def test_a_job_that_waits_goes_to_a_host_that_comes_to_another(self, posts: Posts) -> None:
        async with posts[0].worker(name="gone"):
            await posts.until_seen(posts[0], free=8)
        await posts.until(lambda: posts[0].core.fleet.active_hosts == 0)
        job = await submit(posts[0].core, order(posts[0]))

        async with posts[1].worker(name="comes"):
            assert await asyncio.wait_for(read(job), 20) == " tok" * TOKENS

    async def test_one_that_is_held_at_less_is_quoted_anew_where_it_is_leased(self, posts: Posts) -> None:
        """The price to wait at is that of hosts at price 0, which never come: the one that comes costs more."""
        offer = make_offer(name="trivial", context_tokens=100_000, price_out=0)
        for _ in range(3):
            await add_host(posts[0].core, make_new_host(models=(offer,), transport=LINK))
        dear = msgspec.structs.replace(offer, price_out_uusd_per_mtok=PRICE["token_out"])
        await add_host(posts[0].core, make_new_host(models=(dear,), transport=LINK))
        rich = await submit(posts[0].core, order(posts[0]))
        poor = await submit(posts[0].core, order(posts[0], tokens=12_000))
        assert (rich.terms.hold_uusd, rich.ceilings) == (0, (TOKENS * 100,))
        assert poor.ceilings == (1_200_000,)

        async with posts[1].worker(name="comes", prices={"token_out": PRICE["token_out"]}):
            assert await asyncio.wait_for(read(rich), 20) == " tok" * TOKENS
            await posts.until(lambda: poor.ceilings == ())

        assert poor.state is JobState.QUEUED
        ((held, cost),) = await posts[0].core.db.fetch("SELECT hold_uusd, cost_uusd FROM jobs WHERE id = ?", [rich.id])
        assert (held, cost) == (TOKENS * 100, TOKENS * 100)


class TestPulseElsewhere:
    async def test_a_link_with_another_coordinator_is_known_here(self, posts: Posts) -> None:
        """Through a balancer a worker's pulses come anywhere; told that it has no link, it would make it anew."""
        async with posts[1].worker():
            await posts.until_seen(posts[0], free=8)
            state = json.loads((posts.folder / "worker" / "host.json").read_bytes())
            for post in posts.each:
                async with calling(post, key=state["api_key"]) as session:
                    assert (await (await session.post("/link/pulse", json={})).json())["linked"]

        await posts.until(lambda: posts[0].core.fleet.by_status()[OFFLINE] == 1)
        async with calling(posts[0], key=state["api_key"]) as session:
            assert not (await (await session.post("/link/pulse", json={})).json())["linked"]


class TestTurns:
    async def test_who_waits_longer_elsewhere_is_not_passed_over(self, posts: Posts) -> None:
        """All hosts are at the other coordinator, whose own buyers keep it busy: jobs from here get their turn."""
        async with posts[1].worker(slots=1, options={"per_s": 2000.0}):
            await posts.until_seen(posts[0])
            first = [await submit(posts[1].core, order(posts[1])) for _ in range(5)]
            mine = await submit(posts[0].core, order(posts[0]))
            later = [await submit(posts[1].core, order(posts[1])) for _ in range(30)]

            await asyncio.wait_for(read(mine), 20)

            assert sum(not job.over for job in later) > 15
            for job in first + later:
                await read(job)


def picks(post: Post) -> int:
    """Return how many jobs the coordinator knows to have been given to hosts, by anybody."""
    return sum(candidate.picks for host in post.core.fleet for candidate in host.candidates.values())


class TestStrategies:
    async def test_hosts_take_turns_over_all_coordinators(
        self, tmp_path: Path, postgres_address: str, redis_server: RedisServer
    ) -> None:
        """Three hosts at two coordinators, asked in turn: each does a third, wherever its jobs were bought."""
        async with (
            open_posts(tmp_path, database=postgres_address, bus=redis_server.url, routing="round_robin") as posts,
            posts[0].worker(name="a"),
            posts[0].worker(name="b"),
            posts[1].worker(name="c"),
        ):
            for post in posts.each:
                await posts.until_seen(post, free=24)
            before = [picks(post) for post in posts.each]
            for number in range(12):
                post = posts[number % 2]
                await read(await submit(post.core, order(post, tokens=1)))
                # What was chosen is told every 20 ms; a buyer who is faster is answered all the same.
                told = [count + number + 1 for count in before]
                await posts.until(lambda: [picks(each) for each in posts.each] == told)  # noqa: B023 (awaited here)

            done = sorted(
                host.jobs_done for post in posts.each for host in post.core.fleet if host.id in post.core.channels
            )

            assert done == [4, 4, 4]


class TestReaderElsewhere:
    async def test_a_stream_is_followed_at_any_coordinator(self, posts: Posts) -> None:
        async with posts[1].worker(options={"per_s": 200.0}):
            await posts.until_seen(posts[0], free=8)
            job = await submit(posts[1].core, order(posts[1]))
            job_id = public("job", job.id)

            here, there = await asyncio.gather(events(posts[0], job_id), events(posts[1], job_id))

            assert here == there
            assert here.count('data: {"token": " tok"}') == TOKENS
            assert here[-1] == "data: [DONE]"

    async def test_it_goes_on_elsewhere_where_it_broke_off(self, posts: Posts) -> None:
        async with posts[1].worker(options={"per_s": 200.0}):
            await posts.until_seen(posts[0], free=8)
            job = await submit(posts[1].core, order(posts[1]))
            await posts.until(lambda: len(job.frames) > 5)

            rest = await events(posts[0], public("job", job.id), after=4)

            assert rest[0] == "id: 5"
            assert rest.count('data: {"token": " tok"}') == TOKENS - 5
            # And after its end, from what is stored.
            assert await events(posts[0], public("job", job.id), after=4) == rest

    async def test_one_that_only_asks_is_told_its_state(self, posts: Posts) -> None:
        async with posts[1].worker(options={"per_s": 50.0}):
            await posts.until_seen(posts[0], free=8)
            job = await submit(posts[1].core, order(posts[1]))
            await posts.until(lambda: job.frames)
            async with calling(posts[0]) as session, session.get(f"/jobs/{public('job', job.id)}") as response:
                found = await response.json()

            assert found["status"] in ("running", "processing", "in_progress"), found
            await read(job)


class TestCancelElsewhere:
    async def test_one_that_was_completed_elsewhere_unheard_of_is_not_cancelled(self, posts: Posts) -> None:
        """The bus stood still: the first coordinator took the job for its own, and told its buyer that it was
        cancelled."""
        async with posts[1].worker():
            await posts.until_seen(posts[0], free=8)
            peers_of(posts[1].core).board.send = lambda *message: None  # type: ignore[method-assign]
            job = await submit(posts[0].core, order(posts[0]))
            async with asyncio.timeout(20):
                while (await posts[0].core.jobs.get(job.id)).state != JobState.COMPLETED:
                    await asyncio.sleep(0.01)
            assert not job.over

            with contextlib.suppress(JobFinished):
                await stop(posts[0].core, job)

            async with asyncio.timeout(20):
                assert await read(job) == " tok" * TOKENS
            assert job.state == JobState.COMPLETED

    async def test_a_job_is_cancelled_at_any_coordinator(self, posts: Posts) -> None:
        async with posts[1].worker(options={"per_s": 20.0}):
            await posts.until_seen(posts[0], free=8)
            job = await submit(posts[1].core, order(posts[1], tokens=500))
            await posts.until(lambda: job.frames)

            async with calling(posts[0]) as session, session.post(f"/jobs/{public('job', job.id)}/cancel") as response:
                assert response.status == 200, await response.text()
                found: dict[str, Any] = await response.json()

            assert found["status"] == "cancelled"
            assert job.state == JobState.CANCELLED

    async def test_a_client_that_hangs_up_stops_the_host_there(self, posts: Posts) -> None:
        async with posts[1].worker(options={"per_s": 20.0}):
            await posts.until_seen(posts[0], free=8)
            body = {
                "model": "trivial",
                "messages": [{"role": "user", "content": "hi"}],
                "stream": True,
                "max_tokens": 500,
            }
            async with calling(posts[0]) as session:
                response = await session.post("/v1/chat/completions", json=body)
                await response.content.readline()
                response.close()

            await posts.until(lambda: posts[1].core.state(Meters).ended.get(JobState.CANCELLED) == 1)
            assert posts[1].core.jobs.live.leased == 0


class TestNewHostElsewhere:
    async def test_one_that_registered_a_moment_ago_is_known_everywhere(self, posts: Posts) -> None:
        """A worker registers through a balancer, and links through it: to another coordinator, most likely."""
        machine = {"gpu": "x", "models": ["poem"], "price_per_token": 0.0001, "backend": "vllm"}
        async with calling(posts[0]) as session, session.post("/hosts/register", json=machine) as response:
            registered = await response.json()

        async with calling(posts[1], key=registered["api_key"]) as there:
            beat = {"host_id": registered["host_id"], "gpu_utilization": 0.0}
            async with there.post("/hosts/heartbeat", json=beat) as response:
                assert response.status == 200, await response.text()
            async with there.ws_connect("/link") as link:
                assert not link.closed

    async def test_a_coordinator_that_is_met_late_hears_what_happened_since_it_hailed(
        self, posts: Posts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The newer one knows us at once and hails; we know of it a second later, and hosts come meanwhile."""
        early, late = peers_of(posts[0].core), posts[1]
        monkeypatch.setattr(early.failover, "_note", lambda alive: None)
        early.board.here = frozenset()
        async with posts[0].worker():
            await posts.until(lambda: posts[0].core.fleet.active_hosts == 1 and not posts[0].core.fleet.unannounced)
            assert late.core.fleet.active_hosts == 0

            monkeypatch.undo()
            await posts.until_seen(late)

    async def test_the_newest_news_of_a_host_that_is_being_looked_up_counts(self, posts: Posts) -> None:
        """It registers and links within the time that a question to the database takes."""
        view = peers_of(posts[1].core).view
        async with posts[0].worker():
            await posts.until_seen(posts[1])
            await posts.until(lambda: not posts[0].core.fleet.unannounced)
            (host,) = posts[0].core.fleet
            (sender,) = peers_of(posts[1].core).board.here
            posts[1].core.fleet.remove(host.id)
            now = peers_of(posts[0].core).view._seen(host)
            for status in ("offline", "active"):
                view._heard(sender, Announcement(False, [msgspec.structs.replace(now, status=status)], [], {}))

            await posts.until(lambda: posts[1].core.fleet.find(host.id) is not None)
            assert posts[1].core.fleet.get(host.id).status == "active"


class TestPollingElsewhere:
    async def test_a_host_that_polls_may_speak_to_any_coordinator(self, posts: Posts) -> None:
        machine = {"gpu": "x", "models": ["poem"], "price_per_token": 0.0001, "endpoint_url": None, "backend": "vllm"}
        async with calling(posts[0]) as session, session.post("/hosts/register", json=machine) as response:
            registered = await response.json()
            assert response.status == 201, registered
        host, key = registered["host_id"], registered["api_key"]
        body = b'{"model":"poem","messages":[{"role":"user","content":"hi"}],"max_tokens":9}'
        async with calling(posts[0], key=key) as here, calling(posts[1], key=key) as there:
            polling = asyncio.create_task(here.post("/hosts/next-job", json={"host_id": host}))
            await posts.until_seen(posts[1])
            job = await submit(posts[1].core, Order(posts[1].buyer_id, "infrintia", "chat", "poem", body, 9, True))
            given = await (await polling).json()
            assert given["job_id"] == public("job", job.id)
            for seq, token in enumerate(("one ", "two ", "three")):
                caller = (here, there)[seq % 2]
                chunk = gzip.compress(msgspec.json.encode({"host_id": host, "token": token, "seq": seq}))
                path, packed = f"/hosts/jobs/{given['job_id']}/chunk", {"content-encoding": "gzip"}
                async with caller.post(path, data=chunk, headers=packed) as response:
                    assert response.status in (200, 202), await response.text()
            async with there.post(f"/hosts/complete-job/{given['job_id']}", json={"host_id": host}) as response:
                assert response.status == 200, await response.text()

        assert await asyncio.wait_for(read(job), 10) == "one two three"
        assert job.state == JobState.COMPLETED

    async def test_so_may_one_in_the_native_shape(self, posts: Posts) -> None:
        """What it brings goes to the coordinator that owns the job, and a repeat of the end is answered by any."""
        offer = {"name": "poem", "kinds": ["chat"], "price_out_uusd_per_mtok": 100_000_000, "can_continue": True}
        machine = {"transport": "poll", "models": [offer]}
        async with calling(posts[0]) as session, session.post("/house/hosts", json=machine) as response:
            registered = await response.json()
            assert response.status == 201, registered
        key = registered["api_key"]
        body = b'{"model":"poem","messages":[{"role":"user","content":"hi"}],"max_tokens":9,"seed":1}'
        async with calling(posts[0], key=key) as here, calling(posts[1], key=key) as there:
            polling = asyncio.create_task(here.post("/house/host/jobs/next", json={}))
            await posts.until_seen(posts[1])
            job = await submit(posts[1].core, Order(posts[1].buyer_id, "openai", "chat", "poem", body, 9, True))
            given = await (await polling).json()
            path, lease = f"/house/host/jobs/{given['job_id']}", given["lease"]
            for seq, text in enumerate(("one ", "two ", "three")):
                frames = {"lease": lease, "seq": seq, "items": [{"text": text}]}
                async with (here, there)[seq % 2].post(f"{path}/frames", json=frames) as response:
                    assert await response.json() == {"next_seq": seq + 1}
            ends = []
            for caller in (there, here, there):
                async with caller.post(f"{path}/done", json={"lease": lease, "end_seq": 3}) as response:
                    ends.append((response.status, await response.json()))

        assert ends == [ends[0]] * 3
        assert (ends[0][0], ends[0][1]["tokens"]) == (200, 3)
        assert await asyncio.wait_for(read(job), 10) == "one two three"
        assert job.state == JobState.COMPLETED
