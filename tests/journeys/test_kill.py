"""Kill -9 under load, again and again: no answered submit is lost, no job ends twice, nobody is paid twice."""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comptoir.app import open_core
from comptoir.dispatch.onboard import add_user
from comptoir.jobs import FINAL
from comptoir.kit.db import Database, open_database
from comptoir.reports import audit
from comptoir.settings import Settings
from comptoir.worker import backoff
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig, run_worker
from tests.journeys.coordinator import main as serve_post
from tests.journeys.forked import Forked
from tests.post import PRICE, free_port

KILLS = 4
BUYERS = 8
JOBS = 240
"""Answered submits wanted; each takes about a tenth of a second at the worker."""

BODY = {"model": "trivial", "input_text": "Explain quantum computing.", "max_tokens": 20}

RESTART_S_MAX = 30.0
"""A bound against hanging, no measurement: `bench_start` shows the time, machines that run tests are noisy."""


@dataclass
class Coordinator:
    """A coordinator process on one data folder and port, and what its buyers were told."""

    data: Path
    database: str
    port: int
    key: str = ""
    serve: Callable[[str, str, str], None] = serve_post
    process: Forked | None = None
    answered: list[bytes] = field(default_factory=list)
    refused: int = 0
    """Submits that got no answer, or not the one wanted: they may exist or not."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> float:
        """Start the process; return the seconds to its first healthy answer."""
        before = time.monotonic()
        self.process = Forked(self.serve, str(self.data), self.database, str(self.port))
        async with aiohttp.ClientSession() as session, asyncio.timeout(30):
            while not await self.healthy(session):
                await asyncio.sleep(0.01)
        return time.monotonic() - before

    async def end(self, number: int) -> int:
        """Send a signal; return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return await asyncio.wait_for(self.process.wait(), 20)
        except TimeoutError:
            self.process.kill()
            raise

    async def healthy(self, session: aiohttp.ClientSession) -> bool:
        """Whether it answers and is well."""
        try:
            async with session.get(f"{self.url}/health") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def buy_forever(self, session: aiohttp.ClientSession, name: str) -> None:
        """Submit jobs one after another, each under its own key, through whatever happens to the coordinator."""
        for number in range(10_000):
            headers = {"authorization": f"Bearer {self.key}", "idempotency-key": f"{name}-{number}"}
            try:
                async with session.post(f"{self.url}/run/model", json=BODY, headers=headers) as answer:
                    if answer.status == 202:
                        self.answered.append(bytes.fromhex((await answer.json())["job_id"].removeprefix("job_")))
                        continue
            except aiohttp.ClientError:
                pass
            self.refused += 1
            await asyncio.sleep(0.05)


async def first_people(coordinator: Coordinator) -> None:
    """Make the buyer before the coordinator runs for the first time."""
    settings = Settings(data=str(coordinator.data), database=coordinator.database)
    async with open_core(settings) as core:
        made = await add_user(core, username="ada", email=None, password=None, credit_uusd=1_000_000_000)
        coordinator.key = made.key


@contextlib.asynccontextmanager
async def worker(coordinator: Coordinator, folder: Path) -> AsyncIterator[None]:
    """Run a worker that stays up through all of it."""
    stop = asyncio.Event()
    config = WorkerConfig(
        url=coordinator.url,
        engines=[EngineSpec("bench.trivial_engine:TrivialEngine", {"per_s": 400.0})],
        slots=16,
        prices=PRICE,
        measure=False,
        state_dir=str(folder / "worker"),
        drain_s=1.0,
    )
    task = asyncio.create_task(run_worker(config, stop=stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


@contextlib.asynccontextmanager
async def keep_buying(
    buy_forever: Callable[[aiohttp.ClientSession, str], Coroutine[Any, Any, None]],
) -> AsyncIterator[None]:
    """Keep `BUYERS` buying: each with a name of its own, until the block ends; none may end before."""
    async with aiohttp.ClientSession() as session:
        tasks = [asyncio.create_task(buy_forever(session, f"b{n}")) for n in range(BUYERS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(outcome, asyncio.CancelledError), outcome


async def states(db: Database) -> dict[bytes, str]:
    return {bytes(row[0]): str(row[1]) for row in await db.fetch("SELECT id, state FROM jobs")}


async def until_all_over(db: Database) -> None:
    async with asyncio.timeout(60):
        while not set((await states(db)).values()) <= FINAL:
            await asyncio.sleep(0.1)


async def kill_again_and_again(coordinator: Coordinator, folder: Path, *, db: Database, seed: int) -> list[float]:
    """Kill under load, restart, let everything end, stop in order; return the seconds each start took."""
    dice = random.Random(seed)
    starts_s = [await coordinator.start()]
    try:
        async with worker(coordinator, folder):
            async with keep_buying(coordinator.buy_forever):
                for _ in range(KILLS):
                    await asyncio.sleep(dice.uniform(0.15, 0.8))
                    assert await coordinator.end(signal.SIGKILL) == -signal.SIGKILL
                    starts_s.append(await coordinator.start())
                async with asyncio.timeout(60):
                    while len(coordinator.answered) < JOBS:
                        await asyncio.sleep(0.05)
            await until_all_over(db)
    finally:
        status = await coordinator.end(signal.SIGTERM)
    assert status == 0
    return starts_s


class TestKill:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("database_address", "seed"),
        [
            ("sqlite", 1),
            ("postgresql", 2),
            pytest.param("sqlite", 2, marks=pytest.mark.proof),
            pytest.param("postgresql", 1, marks=pytest.mark.proof),
        ],
        indirect=["database_address"],
    )
    async def test_nothing_answered_is_lost_and_nobody_is_paid_twice(
        self, tmp_path: Path, database_address: str, monkeypatch: pytest.MonkeyPatch, seed: int
    ) -> None:
        monkeypatch.setattr(backoff, "BACKOFF_LAST_S", 0.1)
        coordinator = Coordinator(tmp_path / "data", database_address, free_port())
        await first_people(coordinator)
        db = open_database(database_address)
        try:
            starts_s = await kill_again_and_again(coordinator, tmp_path, db=db, seed=seed)

            ended = await states(db)
            assert await audit(db) == []
            assert {ended.get(job) for job in coordinator.answered} == {"completed"}
            assert set(ended.values()) <= FINAL
            # What was asked for and not answered may exist; nothing else does.
            assert len(ended) <= len(coordinator.answered) + coordinator.refused
            paid = "SELECT job_id, count(*) FROM transfers WHERE kind = 'pay' GROUP BY job_id HAVING count(*) > 1"
            assert await db.fetch(paid) == []
            assert max(starts_s) < RESTART_S_MAX, starts_s
            print(f"starts took {[round(one, 2) for one in starts_s]} s, {len(ended)} jobs")
        finally:
            await db.close()
