"""Several coordinators of one trading post in one event loop: one PostgreSQL, one Redis, workers beside them."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comptoir.app import open_core, running
from comptoir.cluster import Cluster
from comptoir.dispatch import Core
from comptoir.dispatch.onboard import add_user
from comptoir.identity import Role
from comptoir.reports import audit
from comptoir.settings import Settings
from tests.post import Post


@dataclass
class Posts:
    """Coordinators of one trading post, each with its own address."""

    each: list[Post]
    folder: Path
    forged: bool = False
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    def __getitem__(self, number: int) -> Post:
        return self.each[number]

    @property
    def cores(self) -> list[Core]:
        """The core of each coordinator."""
        return [post.core for post in self.each]

    async def until(self, true: Any, *, within_s: float = 20.0) -> None:
        """Wait until *true* says so."""
        async with asyncio.timeout(within_s):
            while not true():
                await asyncio.sleep(0.01)

    async def until_seen(self, at: Post, *, free: int = 1) -> None:
        """Wait until coordinator *at* knows of so many free slots, its own and others'."""
        await self.until(lambda: sum(host.slots.free for host in at.core.fleet) >= free)


def peers_of(core: Core) -> Cluster:
    """Return the coordinator's place among the others."""
    assert isinstance(core.peers, Cluster)
    return core.peers


@contextlib.asynccontextmanager
async def coordinator(folder: Path, *, database: str, bus: str, **settings: Any) -> AsyncIterator[tuple[Core, str]]:
    """Run one coordinator; all in *folder* share the signing key."""
    cheap = {"drain_s": 0.0, "argon2_memory_kib": 8, "argon2_passes": 1}
    chosen = Settings(data=str(folder / "data"), database=database, bus=bus, port=0, **(cheap | settings))
    async with open_core(chosen) as core, running(core) as url:
        yield core, url


@contextlib.asynccontextmanager
async def open_posts(folder: Path, *, database: str, bus: str, count: int = 2, **settings: Any) -> AsyncIterator[Posts]:
    """Start *count* coordinators with one buyer (100 credits) and one operator; audits the books at the end."""
    async with contextlib.AsyncExitStack() as stack:
        cores = [
            await stack.enter_async_context(coordinator(folder, database=database, bus=bus, **settings))
            for _ in range(count)
        ]
        first = cores[0][0]
        buyer = await add_user(first, username="ada", email="ada@example.org", password="correct-horse")
        admin = await add_user(
            first, username="root", email="root@example.org", password="correct-horse", role=Role.ADMIN
        )
        posts = Posts(
            [Post(core, url, buyer.user.id, buyer.key, admin.key, folder, forged=True) for core, url in cores], folder
        )
        # Each knew of those before it when it began; those would hear of it at their next sign of life, up to a second
        # later.
        for core, later in itertools.permutations(posts.cores, 2):
            await peers_of(core).ensure_known(later.node_id)
        assert all(len(peers_of(core).board.here) == count - 1 for core in posts.cores)
        yield posts
        assert posts.forged or await audit(first.db) == []
