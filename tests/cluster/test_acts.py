"""Acts over coordinators: within a second over the bus, with the next look at the record without it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comptoir.dispatch.onboard import add_host
from comptoir.dispatch.submit import submit
from comptoir.hosts import POLL, NewHost
from comptoir.jobs import JobState
from comptoir.kit.ids import public
from comptoir.link import ModelOffer
from comptoir.moderation import Verb
from tests.cluster.posts import Posts, open_posts, peers_of
from tests.cluster.test_any_coordinator import calling, order, read
from tests.dispatch.acting import WHY, on_model, on_user, resume, retire, suspend
from tests.post import Post
from tests.redis_server import RedisServer


@pytest.fixture
async def posts(tmp_path: Path, postgres_address: str, redis_server: RedisServer) -> AsyncIterator[Posts]:
    async with open_posts(tmp_path, database=postgres_address, bus=redis_server.url) as opened:
        yield opened


async def answered(post: Post, path: str, key: str) -> tuple[int, str]:
    """Ask one coordinator; return status and text."""
    async with calling(post, key=key) as session, session.get(path) as answer:
        return answer.status, await answer.text()


class TestOverTheBus:
    async def test_one_coordinators_act_is_in_force_at_the_other(self, posts: Posts) -> None:
        """The host is linked to the second; the act comes from the first, whose buyers' jobs it runs."""
        here, there = posts[0], posts[1]
        async with there.worker(options={"per_s": 0.2}):
            await posts.until_seen(here, free=8)
            (bad,) = [host.id for host in there.core.fleet]
            async with there.worker(name="other", options={"per_s": 2000.0}):
                await posts.until(lambda: len(here.core.fleet) == 2 and all(h.slots.free for h in here.core.fleet))
                jobs = [await submit(here.core, order(here, tokens=40)) for _ in range(4)]
                await posts.until(lambda: any(j.host_id == bad for j in there.core.jobs.live.under_lease()))

                async with asyncio.timeout(1):
                    await suspend(here.core, bad)
                    while not all(core.fleet.find(bad) is None for core in posts.cores):
                        await asyncio.sleep(0.005)

                assert bad not in there.core.channels
                assert [await read(job) for job in jobs] == [" tok" * 40] * 4
                assert {job.state for job in jobs} == {JobState.COMPLETED}
                await resume(here.core, bad)
                await posts.until(lambda: there.core.fleet.find(bad) is not None)
                await retire(there.core, bad)
                await posts.until(lambda: here.core.fleet.find(bad) is None)
        assert [act.verb for act in await here.core.moderation.page(limit=9)] == [
            "host.retire",
            "host.resume",
            "host.suspend",
        ]

    async def test_keys_cached_elsewhere_are_refused_and_names_withdrawn(self, posts: Posts) -> None:
        here, there = posts[0], posts[1]
        assert (await answered(there, "/v1/models", there.buyer_key))[0] == 200
        # A job that the other one owns, and that waits for a host.
        mine = NewHost(gpu="x", models=(ModelOffer("trivial", ["chat"]),), transport=POLL)
        await add_host(there.core, mine)
        job = await submit(there.core, order(there))

        async with asyncio.timeout(1):
            await on_user(here.core, Verb.USER_SUSPEND, here.buyer_id)
            await on_model(here.core, Verb.MODEL_QUARANTINE, "gpt")
            while there.core.moderation.read_to < 2 or not job.over:
                await asyncio.sleep(0.005)

        status, text = await answered(there, "/v1/models", there.buyer_key)
        assert (status, WHY in text) == (403, True)
        assert there.core.moderation.suspended.keys() == {public("usr", here.buyer_id)}
        assert list(there.core.moderation.quarantined) == ["gpt"]
        assert (job.state, job.cost_uusd) == (JobState.CANCELLED, 0)


class TestWithoutTheBus:
    async def test_the_record_is_read_all_the_same(self, posts: Posts, monkeypatch: pytest.MonkeyPatch) -> None:
        here, there = posts[0], posts[1]
        monkeypatch.setattr(peers_of(here.core).board, "tell_all", lambda message: None)
        assert (await answered(there, "/v1/models", there.buyer_key))[0] == 200

        await on_user(here.core, Verb.USER_SUSPEND, here.buyer_id)

        async with asyncio.timeout(10):
            while (await answered(there, "/v1/models", there.buyer_key))[0] != 403:
                await asyncio.sleep(0.05)
