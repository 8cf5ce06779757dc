"""What holds over all coordinators: limits, revoked keys, and the numbers that are shown."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.errors import TooManyJobs
from comptoir.dispatch.submit import submit
from comptoir.identity import OwnerKind
from tests.cluster.posts import Posts, open_posts, peers_of
from tests.cluster.test_any_coordinator import calling, order, read
from tests.redis_server import RedisServer


@pytest.fixture
async def posts(tmp_path: Path, postgres_address: str, redis_server: RedisServer) -> AsyncIterator[Posts]:
    async with open_posts(tmp_path, database=postgres_address, bus=redis_server.url) as opened:
        yield opened


class TestMetrics:
    async def test_they_say_how_it_stands_with_the_others(self, posts: Posts) -> None:
        async with calling(posts[0]) as session, session.get("/metrics", headers={"accept": "text/plain"}) as response:
            lines = (await response.text()).splitlines()

        assert "comptoir_coordinators 2.0" in lines
        assert "comptoir_bus_up 1.0" in lines
        assert "comptoir_jobs_mirrored 0.0" in lines


class TestTotals:
    async def test_what_ended_anywhere_is_counted_everywhere(self, posts: Posts) -> None:
        # What ended before a coordinator was first heard of counts as ended before it began.
        await posts.until(lambda: all(peers_of(core).sharing._heard for core in posts.cores))
        async with posts[1].worker():
            await posts.until_seen(posts[0], free=8)
            for number in range(6):
                await read(await submit(posts[number % 2].core, order(posts[0], tokens=1)))

            for post in posts.each:
                async with calling(post) as session, asyncio.timeout(15):
                    while True:
                        async with session.get("/infrintia/metrics") as response:
                            told = await response.json()
                        if told["total_jobs_completed"] == 6:
                            break
                        await asyncio.sleep(0.1)


class TestLimits:
    async def test_a_buyers_unfinished_jobs_count_everywhere(
        self, tmp_path: Path, postgres_address: str, redis_server: RedisServer
    ) -> None:
        async with (
            open_posts(tmp_path, database=postgres_address, bus=redis_server.url, jobs_per_buyer_max=3) as narrow,
            narrow[0].worker(options={"per_s": 5.0}),
        ):
            await narrow.until_seen(narrow[1], free=8)
            jobs = [await submit(narrow[0].core, order(narrow[0])) for _ in range(3)]
            await narrow.until(lambda: narrow[1].core.state(Buyers).in_flight.total(narrow[1].buyer_id) == 3)

            with pytest.raises(TooManyJobs):
                await submit(narrow[1].core, order(narrow[1]))

            await cancel(narrow[0].core, jobs[0])
            await narrow.until(lambda: narrow[1].core.state(Buyers).in_flight.total(narrow[1].buyer_id) == 2)
            # There is room for one again; nobody waits for the end of those that are open.
            await submit(narrow[1].core, order(narrow[1]))

    async def test_requests_of_a_key_count_everywhere(
        self, tmp_path: Path, postgres_address: str, redis_server: RedisServer
    ) -> None:
        async with (
            open_posts(
                tmp_path, database=postgres_address, bus=redis_server.url, requests_per_minute_per_key=30
            ) as narrow,
            calling(narrow[0]) as here,
            calling(narrow[1]) as there,
        ):
            for _ in range(30):
                async with here.get("/v1/models") as response:
                    assert response.status == 200

            async def refused() -> bool:
                async with there.get("/v1/models") as response:
                    return response.status == 429

            async with asyncio.timeout(10):
                while not await refused():
                    await asyncio.sleep(0.02)

    async def test_a_revoked_key_ends_everywhere(self, posts: Posts) -> None:
        identity = posts[0].core.identity
        new = await identity.create_key(OwnerKind.USER, posts[0].buyer_id)
        async with calling(posts[1], key=new.secret) as session:
            async with session.get("/v1/models") as response:
                assert response.status == 200
            await identity.revoke_key(new.id, owner_id=posts[0].buyer_id)
            async with asyncio.timeout(10):
                while (await session.get("/v1/models")).status != 401:
                    await asyncio.sleep(0.02)
