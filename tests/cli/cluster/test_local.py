"""A whole cluster on this machine: any coordinator is as good as another, and what dies comes back."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import pytest_asyncio

from comptoir.cli.cluster import local
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


@dataclass
class Here:
    """The cluster of these tests: two coordinators and all that goes with them."""

    place: Path
    news: News = field(default_factory=News)

    async def start(self) -> None:
        """Start it, or start it anew where it was."""
        self.cluster = LocalCluster(self.place, coordinators=2, fsync=False, on_event=self.news, drain_s=2.0)
        await self.cluster.start()

    async def until_well(self) -> None:
        """Wait until every coordinator is well: what died is back, and they know it."""
        async with asyncio.timeout(60):
            for one in self.cluster.coordinators:
                while not await _is_well(one.url):
                    await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def place_of_all(run_folder: Path) -> Iterator[Path]:
    """A folder, not there yet, that PostgreSQL's user may pass through."""
    with tempfile.TemporaryDirectory(prefix="place-", dir=run_folder) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "data"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(place_of_all: Path) -> AsyncIterator[Here]:
    """Start it once; each test leaves it well."""
    here = Here(place_of_all)
    try:
        await here.start()
        yield here
    finally:
        await here.cluster.stop()


async def _is_well(url: str) -> bool:
    try:
        await fetch(url + "/health")
    except OSError:
        return False
    return True


async def fetch(url: str) -> Any:
    """GET a JSON document."""

    def get() -> Any:
        with urlopen(url, timeout=20) as answer:
            return json.load(answer)

    return await asyncio.to_thread(get)


@pytest.mark.asyncio(loop_scope="module")
class TestCluster:
    async def test_a_killed_coordinator_comes_back_at_its_address_and_requests_go_on_meanwhile(
        self, here: Here
    ) -> None:
        cluster, news = here.cluster, here.news
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

    async def test_a_coordinator_that_drains_gets_no_new_connections(self, here: Here) -> None:
        cluster, news = here.cluster, here.news
        leaving, _ = cluster.coordinators
        (backend,) = [one for one in cluster.balancer.backends if one.address == leaving.address]
        served, heard = backend.served, len(news.heard)

        leaving.drain()
        await news.until(leaving.name, "Draining", after=heard)
        for _ in range(4):
            assert (await fetch(cluster.url + "/house/status"))["status"] == "open"

        assert backend.served == served
        await news.until(leaving.name, "Started", after=heard)
        await here.until_well()

    async def test_one_that_stands_still_is_passed_by_until_it_goes_on(
        self, here: Here, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its connections are still accepted, by the kernel, so only a question shows it."""
        # On a busy machine the next question may come late.
        monkeypatch.setattr(local, "PASSED_BY_S", 60.0)
        cluster = here.cluster
        still, _ = cluster.coordinators
        (backend,) = [one for one in cluster.balancer.backends if one.address == still.address]
        now_s = asyncio.get_running_loop().time
        still.pause()
        try:
            assert not await still.answers(0.2)
            async with asyncio.timeout(60):
                while backend.skipped_until_s < now_s():
                    await asyncio.sleep(0.01)

            served = backend.served
            for _ in range(4):
                assert (await fetch(cluster.url + "/house/status"))["status"] == "open"
            assert backend.served == served
        finally:
            still.resume()
        async with asyncio.timeout(60):
            while backend.skipped_until_s > now_s():
                await asyncio.sleep(0.01)
        await here.until_well()

    async def test_redis_and_postgresql_come_back_too(self, here: Here) -> None:
        cluster = here.cluster
        assert cluster.postgres is not None and cluster.redis is not None
        for server in (cluster.redis, cluster.postgres):
            heard = len(here.news.heard)
            server.kill()
            await here.news.until(server.name, "Started", after=heard)
        await here.until_well()

    async def test_people_and_keys_are_made_once_and_survive_a_restart(self, here: Here) -> None:
        first = read_quickstart(here.place)
        keys = [await fetch(one.url + "/house/keys") for one in here.cluster.coordinators]
        parts = here.cluster.parts()
        assert len(parts) == 4 and all(part.pid for part in parts)
        await here.cluster.stop()
        assert [part.name for part in parts if part.pid] == [], "nothing is left behind"

        await here.start()
        keys += [await fetch(one.url + "/house/keys") for one in here.cluster.coordinators]
        assert read_quickstart(here.place) == first
        assert first is not None and first.key and first.admin_key

        coordinators = [[key for key in one["keys"] if key["holder"] == "coordinator"] for one in keys]
        assert len(coordinators[0]) == 1
        assert all(one == coordinators[0] for one in coordinators), "all of them sign with one key"
