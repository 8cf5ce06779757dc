"""A whole trading post for tests: coordinator on a free loopback port, workers beside it, all in the test's event
loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comptoir.app import open_core, running
from comptoir.dispatch import Core
from comptoir.dispatch.onboard import add_user
from comptoir.identity import Role
from comptoir.reports import audit
from comptoir.settings import Settings
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.events import OnEvent
from comptoir.worker.run import WorkerConfig, run_worker

PRICE: Mapping[str, int] = {"token_in": 1_000_000, "token_out": 100_000_000}
"""$1 in and $100 out per million tokens: a token costs 100 micro-dollars, as in the published samples."""


QUICK: Mapping[str, Any] = {"argon2_memory_kib": 8, "argon2_passes": 1, "drain_s": 0.0}
"""Passwords cost next to nothing (the default is 0.1 s each), and nobody waits at the end for what a test left open."""


@dataclass
class Post:
    """One running trading post."""

    core: Core
    url: str
    buyer_id: bytes
    buyer_key: str
    admin_key: str
    folder: Path
    forged: bool = False
    """Set by tests that forge the books, which are then not audited at the end."""

    async def until_linked(self, hosts: int = 1, *, beside: Collection[object] = ()) -> None:
        """Wait until *hosts* workers are linked, not counting the lines *beside*, which may end meanwhile."""
        async with asyncio.timeout(20):
            while sum(line not in beside for line in self.core.channels.values()) < hosts:
                await asyncio.sleep(0.001)

    @contextlib.asynccontextmanager
    async def worker(
        self,
        *,
        engine: str = "bench.trivial_engine:TrivialEngine",
        options: dict[str, Any] | None = None,
        slots: int = 8,
        prices: Mapping[str, int] = PRICE,
        name: str = "worker",
        urls: Sequence[str] = (),
        drain_s: float = 0.0,
        promotions: bool = True,
        on_event: OnEvent | None = None,
        kinds: Sequence[str] = (),
    ) -> AsyncIterator["asyncio.Event"]:
        """Run a worker until the block ends; gives the event that stops it. With *urls* it goes to any, and is not
        waited for."""
        stop = asyncio.Event()
        config = WorkerConfig(
            url=",".join(urls) or self.url,
            engines=[EngineSpec(engine, options or {})],
            slots=slots,
            prices=prices,
            measure=False,
            state_dir=str(self.folder / name),
            drain_s=drain_s,
            promotions=promotions,
            kinds=list(kinds),
        )
        before = list(self.core.channels.values())
        task = asyncio.create_task(run_worker(config, on_event=on_event, stop=stop))
        try:
            if not urls:
                await self.until_linked(beside=before)
            yield stop
        finally:
            stop.set()
            await asyncio.wait_for(task, 20)


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def open_post(folder: Path, *, database: str = "", **settings: Any) -> AsyncIterator[Post]:
    """Start a trading post in *folder* with one buyer (100 credits) and one operator."""
    chosen = Settings(data=str(folder / "data"), database=database, port=0, **{**QUICK, **settings})
    async with open_core(chosen) as core:
        known: dict[str, Any] = {"password": "correct-horse", "of_the_house": True}
        buyer = await add_user(core, username="ada", email="ada@example.org", **known)
        admin = await add_user(core, username="root", email="root@example.org", role=Role.ADMIN, **known)
        async with running(core) as url:
            post = Post(core, url, buyer.user.id, buyer.key, admin.key, folder)
            yield post
        # Whatever a test did to this trading post, its books are exact afterwards.
        assert post.forged or await audit(core.db) == []
