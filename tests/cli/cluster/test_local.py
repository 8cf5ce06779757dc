"""A whole cluster on this machine: any coordinator is as good as another, and what dies comes back."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from comptoir.cli.cluster.local import LocalCluster
from comptoir.cli.quickstart import read_quickstart


class News:
    """What a cluster said, and a way to wait for more."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def __call__(self, name: str, kind: str, facts: dict[str, Any]) -> None:
        self.heard.append((name, kind))

    async def until(self, name: str, kind: str, *, after: int = 0) -> None:
        """Wait until *name* said *kind*."""
        async with asyncio.timeout(60):
            while (name, kind) not in self.heard[after:]:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def cluster_in(place: Path, **more: Any) -> AsyncIterator[tuple[LocalCluster, News]]:
    """Run two coordinators and all that goes with them."""
    news = News()
    cluster = LocalCluster(place, coordinators=2, fsync=False, on_event=news, drain_s=2.0, **more)
    try:
        await cluster.start()
        yield cluster, news
    finally:
        await cluster.stop()


async def fetch(url: str) -> Any:
    """GET a JSON document."""

    def get() -> Any:
        with urlopen(url, timeout=20) as answer:
            return json.load(answer)

    return await asyncio.to_thread(get)


class TestCluster:
    async def test_a_killed_coordinator_comes_back_at_its_address_and_requests_go_on_meanwhile(
        self, place: Path
    ) -> None:
        async with cluster_in(place) as (cluster, news):
            victim = cluster.coordinators[0]
            pid, url = victim.pid, victim.url
            heard = len(news.heard)

            victim.kill()
            # What it had accepted is cut; from now on nobody is sent to it.
            await victim.ended()
            for _ in range(10):
                assert (await fetch(cluster.url + "/house/status"))["status"] == "open"
            await news.until(victim.name, "Started", after=heard)

            assert news.heard[heard:][0] == (victim.name, "Crashed")
            assert (victim.pid != pid, victim.url) == (True, url)
            assert (await fetch(url + "/house/status"))["status"] == "open"

    async def test_people_and_keys_are_made_once_and_survive_a_restart(self, place: Path) -> None:
        async with cluster_in(place) as (cluster, _):
            first = read_quickstart(place)
            keys = [await fetch(one.url + "/house/keys") for one in cluster.coordinators]
            parts = cluster.parts()
            assert len(parts) == 4 and all(part.pid for part in parts)
        assert [part.name for part in parts if part.pid] == [], "nothing is left behind"

        async with cluster_in(place) as (cluster, _):
            keys += [await fetch(one.url + "/house/keys") for one in cluster.coordinators]
            assert read_quickstart(place) == first
            assert first is not None and first.key and first.admin_key

        coordinators = [[key for key in one["keys"] if key["holder"] == "coordinator"] for one in keys]
        assert len(coordinators[0]) == 1
        assert all(one == coordinators[0] for one in coordinators), "all of them sign with one key"

    async def test_a_coordinator_that_drains_gets_no_new_connections(self, place: Path) -> None:
        async with cluster_in(place, supervised=False) as (cluster, news):
            leaving, staying = cluster.coordinators
            before = {one.address: one.served for one in cluster.balancer.backends}

            leaving.drain()
            await news.until(leaving.name, "Draining")
            for _ in range(4):
                await fetch(cluster.url + "/house/status")
            await leaving.ended()

            after = {one.address: one.served - before[one.address] for one in cluster.balancer.backends}
            assert after == {leaving.address: 0, staying.address: 4}

    async def test_one_that_stands_still_is_passed_by_until_it_goes_on(self, place: Path) -> None:
        """Its connections are still accepted, by the kernel, so only a question shows it."""
        async with cluster_in(place) as (cluster, _):
            still, alive = cluster.coordinators
            still.pause()
            assert not await still.answers(0.2)
            backends = {one.address: one for one in cluster.balancer.backends}
            now_s = asyncio.get_running_loop().time
            async with asyncio.timeout(20):
                while backends[still.address].skipped_until_s < now_s():
                    await asyncio.sleep(0.01)

            served = backends[still.address].served
            for _ in range(4):
                assert (await fetch(cluster.url + "/house/status"))["status"] == "open"
            assert backends[still.address].served == served

            still.resume()
            async with asyncio.timeout(20):
                while backends[still.address].skipped_until_s > now_s():
                    await asyncio.sleep(0.01)
            assert await alive.answers() and await still.answers()

    async def test_redis_and_postgresql_come_back_too(self, place: Path) -> None:
        async with cluster_in(place) as (cluster, news):
            assert cluster.postgres is not None and cluster.redis is not None
            for server in (cluster.redis, cluster.postgres):
                heard = len(news.heard)
                server.kill()
                await news.until(server.name, "Started", after=heard)
