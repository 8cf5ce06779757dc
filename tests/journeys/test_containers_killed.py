"""Kill -9 among chains of containers: every job that was answered exists and ends, each container stands once in its
output."""

import asyncio
import contextlib
import json
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from comptoir import app
from comptoir.kit.db import Database, open_database
from comptoir.receipts import read_registry, verify
from comptoir.reports import audit
from tests.dialects.infernet.shop import PLENTY, Node
from tests.journeys.container_host import RUN_UUSD, HostProcess, slowly
from tests.journeys.test_kill import BUYERS, Coordinator, first_people, keep_buying, states, until_all_over
from tests.post import free_port, open_post
from tests.worker.engines.container_stand_in import (
    ContainerStandIn,
    Run,
    after,
    appends,
    serve_container,
    streams,
)

CHAIN = ["a", "b", "c"]
JOBS = 90
"""Answered submits wanted."""
RUN_S = 0.02


async def tells(run: Run) -> web.StreamResponse:
    """Say in pieces what came in: of a chain, what those before it made."""
    said = ",".join(run.json["data"].get("said", ["nothing"])).encode()
    return await streams(b"<", said, b">")(run)


@dataclass
class Buyers:
    """Clients of the Infernet API, and what they were told."""

    coordinator: Coordinator
    accepted: dict[str, list[str]] = field(default_factory=dict)
    """Containers by job that was answered 200."""
    streamed: dict[str, bytes | None] = field(default_factory=dict)
    """Of streams: all of it, None where the connection broke."""
    refused: int = 0

    async def buy_forever(self, session: aiohttp.ClientSession, name: str) -> None:
        """Buy chains, single containers and streams, one after the other, through whatever happens."""
        for number in range(10_000):
            names = (CHAIN, ["a"], CHAIN, ["a", "b", "s"], ["s"])[number % 5]
            body = {"containers": names, "data": {"buyer": name}}
            with contextlib.suppress(aiohttp.ClientError):
                if names[-1] == "s":
                    await self._stream(session, body)
                else:
                    headers = self._headers(f"{name}-{number}") if number % 2 else self._headers()
                    url = f"{self.coordinator.url}/infernet/api/jobs"
                    async with session.post(url, json=body, headers=headers) as answer:
                        if answer.status == 200:
                            self.accepted[(await answer.json())["id"]] = names
                            continue
            if names[-1] != "s":
                self.refused += 1
                await asyncio.sleep(0.05)

    def _headers(self, key: str = "") -> dict[str, str]:
        given = {"authorization": f"Bearer {self.coordinator.key}"}
        return given | ({"idempotency-key": key} if key else {})

    async def _stream(self, session: aiohttp.ClientSession, body: dict[str, Any]) -> None:
        job = ""
        url = f"{self.coordinator.url}/infernet/api/jobs/stream"
        async with session.post(url, json=body, headers=self._headers()) as answer:
            if answer.status != 200:
                self.refused += 1
                await asyncio.sleep(0.05)
                return
            try:
                job = (await answer.content.readline()).decode().strip()
                self.streamed[job] = await answer.content.read()
            except aiohttp.ClientError:
                if job:
                    self.streamed[job] = None
                else:
                    self.refused += 1

    async def results(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        """Fetch results as Infernet's client does, a hundred at a time."""
        found: dict[str, dict[str, Any]] = {}
        async with aiohttp.ClientSession(headers=self._headers()) as session:
            for first in range(0, len(ids), 100):
                query = "&".join(f"id={one}" for one in ids[first : first + 100])
                async with session.get(f"{self.coordinator.url}/infernet/api/jobs?{query}&intermediate=true") as answer:
                    assert answer.status == 200
                    found.update((one["id"], one) for one in await answer.json())
        return found

    async def check(self) -> None:
        """Every job that was answered ended, and is what its containers made, each of them once."""
        found = await self.results([*self.accepted, *self.streamed])
        for job, names in self.accepted.items():
            said = found[job]
            assert (said["status"], said["result"].get("output")) == ("success", {"said": names}), said
            assert [one["container"] for one in said["intermediate_results"]] == names[:-1]
        for job, whole in self.streamed.items():
            if whole is not None:
                assert found[job]["status"] == "success", found[job]
                assert whole in (b"<a,b>", b"<nothing>")
                assert found[job]["result"]["output"] == {"output": whole.decode()}
            else:
                assert found[job]["status"] in ("success", "failed"), found[job]


async def check_books(db: Database, data: Path, database: str) -> None:
    """Money adds up, no attempt is paid twice, and every receipt holds with nothing but the registry."""
    assert await audit(db) == []
    assert set((await states(db)).values()) <= {"completed", "failed", "cancelled"}
    twice = """SELECT job_id FROM attempts WHERE paid_uusd > 0 GROUP BY job_id, first_frame HAVING count(*) > 1"""
    assert await db.fetch(twice) == []
    async with app.open_core(app.Settings(data=str(data), database=database)) as core:
        registry = read_registry(await core.receipts.registry())
        rows = await db.fetch("SELECT id, state FROM jobs")
        for job_id, _ in rows:
            assert verify(await core.receipts.envelope_of(bytes(job_id)), registry).ok
    assert rows


class TestKilledUnderLoad:
    @pytest.mark.slow
    async def test_every_answered_job_ends_and_each_container_stands_once_in_its_output(
        self, tmp_path: Path, database_address: str
    ) -> None:
        dice = random.Random(1)
        coordinator = Coordinator(tmp_path / "data", database_address, free_port())
        await first_people(coordinator)
        buyers, db = Buyers(coordinator), open_database(database_address)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(db.close)
            urls = {}
            for name in CHAIN:
                one = await stack.enter_async_context(serve_container(slowly(name, RUN_S)))
                urls[name] = one.url
            urls["s"] = (await stack.enter_async_context(serve_container(tells))).url
            hosts = [
                HostProcess(tmp_path, name, coordinator.url, {one: urls[one] for one in serves})
                for name, serves in (("first", "acs"), ("second", "bs"), ("third", "bcs"))
            ]
            await coordinator.start()
            try:
                for host in hosts:
                    await host.start()
                    stack.push_async_callback(host.kill)
                async with keep_buying(buyers.buy_forever):
                    await self._strike(coordinator, hosts, buyers, dice)
                await until_all_over(db)
                await buyers.check()
            finally:
                status = await coordinator.end(signal.SIGTERM)
            assert status == 0
        db = open_database(database_address)
        try:
            await check_books(db, coordinator.data, database_address)
            # What was asked for and not answered may exist; nothing else does.
            known = len(buyers.accepted) + len(buyers.streamed)
            assert known <= len(await states(db)) <= known + buyers.refused + BUYERS
        finally:
            await db.close()

    async def _strike(
        self, coordinator: Coordinator, hosts: list[HostProcess], buyers: Buyers, dice: random.Random
    ) -> None:
        async with asyncio.timeout(60):
            while len(buyers.accepted) < JOBS // 4:
                await asyncio.sleep(0.02)
            for _ in range(2):
                await asyncio.sleep(dice.uniform(0.1, 0.5))
                assert await coordinator.end(signal.SIGKILL) == -signal.SIGKILL
                await coordinator.start()
                await asyncio.sleep(dice.uniform(0.1, 0.5))
                victim = dice.choice(hosts[1:])
                await victim.kill()
                await asyncio.sleep(dice.uniform(0.0, 0.3))
                await victim.start()
            while len(buyers.accepted) < JOBS:
                await asyncio.sleep(0.05)


@dataclass
class Shop:
    """One coordinator here, and hosts in processes of their own."""

    node: Node
    folder: Path
    stack: contextlib.AsyncExitStack

    async def host(self, name: str, *, timeout_s: float = 180.0, **served: ContainerStandIn) -> HostProcess:
        """Start a host of these containers, and wait for its link."""
        urls = {one: container.url for one, container in served.items()}
        host = HostProcess(self.folder, name, self.node.post.url, urls, timeout_s=timeout_s)
        self.stack.push_async_callback(host.kill)
        before = list(self.node.core.channels.values())
        await host.start()
        await self.node.post.until_linked(beside=before)
        return host

    async def finished(self, job: str) -> tuple[str, object]:
        """Wait for a job's end; return its status and output."""
        found = await self.node.result(job)
        return found["status"], found["result"].get("output")

    async def paid(self, job: str) -> list[tuple[str, int]]:
        """Return state and pay of a job's attempts."""
        attempts = await self.node.core.jobs.attempts(bytes.fromhex(job.replace("-", "")))
        return [(one.state, one.paid_uusd) for one in attempts]


PAID = RUN_UUSD - RUN_UUSD * 12 // 100


@contextlib.asynccontextmanager
async def open_shop(folder: Path, database: str = "", **settings: Any) -> AsyncIterator[Shop]:
    async with contextlib.AsyncExitStack() as stack:
        post = await stack.enter_async_context(open_post(folder, database=database, **{**PLENTY, **settings}))
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)))
        yield Shop(Node(post, session), folder, stack)


class TestHostKilled:
    async def test_in_the_middle_of_a_step_another_host_does_that_step_alone(
        self, tmp_path: Path, database_address: str
    ) -> None:
        never = asyncio.Event()
        async with (
            open_shop(tmp_path, database_address) as shop,
            serve_container(appends("a")) as a,
            serve_container(after(never)) as stuck,
            serve_container(appends("b")) as b,
            serve_container(appends("c")) as c,
        ):
            await shop.host("first", a=a, c=c)
            dying = await shop.host("dying", b=stuck)
            jobs = [await shop.node.job(*CHAIN, data={"number": number}) for number in range(3)]
            await stuck.came(3)
            await shop.host("other", b=b)

            await dying.kill()

            assert [await shop.finished(job) for job in jobs] == [("success", {"said": CHAIN})] * 3
            assert [len(one.runs) for one in (a, stuck, b, c)] == [3, 3, 3, 3]
            for job in jobs:
                assert await shop.paid(job) == [("done", PAID), ("lost", 0), ("done", PAID), ("done", PAID)]
                envelope = await shop.node.core.receipts.envelope_of(bytes.fromhex(job.replace("-", "")))
                assert verify(envelope, read_registry(await shop.node.core.receipts.registry())).ok

    async def test_back_with_the_same_state_it_is_given_the_step_again_and_not_the_chain(self, tmp_path: Path) -> None:
        """A host that came back without the job: nobody else has the container, and the step is its own again."""
        gate = asyncio.Event()
        async with (
            open_shop(tmp_path) as shop,
            serve_container(appends("a")) as a,
            serve_container(after(gate, appends("b"))) as b,
        ):
            await shop.host("first", a=a)
            dying = await shop.host("dying", b=b)
            job = await shop.node.job("a", "b", "a")
            await b.came()

            await dying.kill()
            gate.set()
            await dying.start()

            assert await shop.finished(job) == ("success", {"said": ["a", "b", "a"]})
            assert (len(a.runs), len(b.runs)) == (2, 2)
            assert sum(pay for _, pay in await shop.paid(job)) == 3 * PAID

    async def test_one_that_stands_still_is_found_by_the_links_pings(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its connections stay open, and a container's silence says nothing."""
        monkeypatch.setattr(app, "LINK_PING_S", 0.3)
        monkeypatch.setattr(app, "LINK_PONG_S", 0.7)
        gate = asyncio.Event()
        async with (
            open_shop(tmp_path) as shop,
            serve_container(appends("a")) as a,
            serve_container(after(gate, appends("b"))) as stuck,
            serve_container(appends("b")) as b,
        ):
            await shop.host("first", a=a)
            still = await shop.host("still", b=stuck)
            job = await shop.node.job("a", "b")
            await stuck.came()
            await shop.host("other", b=b)

            still.send(signal.SIGSTOP)

            assert await shop.finished(job) == ("success", {"said": ["a", "b"]})
            gate.set()
            still.send(signal.SIGCONT)
            await shop.node.post.until_linked(3)
            assert await shop.paid(job) == [("done", PAID), ("lost", 0), ("done", PAID)]
            assert [len(one.runs) for one in (a, stuck, b)] == [1, 1, 1]

    async def test_a_container_that_takes_its_time_is_not_taken_for_lost(self, tmp_path: Path) -> None:
        """Longer than ``lease_s`` and shorter than its own limit, though another host is free to go on."""
        async with (
            open_shop(tmp_path, lease_s=0.3, stall_floor_s=0.1, stall_first_floor_s=0.1) as shop,
            serve_container(slowly("a", 1.5)) as a,
        ):
            for name in ("first", "second"):
                await shop.host(name, a=a)

            assert await shop.finished(await shop.node.job("a", "a")) == ("success", {"said": ["a", "a"]})
            assert len(a.runs) == 2

    async def test_one_that_takes_longer_than_its_limit_is_failed(self, tmp_path: Path) -> None:
        never = asyncio.Event()
        async with open_shop(tmp_path) as shop, serve_container(after(never)) as a:
            await shop.host("first", a=a, timeout_s=0.3)

            found = await shop.node.result(await shop.node.job("a"))

            assert found["status"] == "failed"
            assert a.url not in json.dumps(found)


class TestCoordinatorKilled:
    async def test_in_the_middle_of_a_step_the_chain_goes_on_there(self, tmp_path: Path, database_address: str) -> None:
        await self._kill(tmp_path, database_address, with_host=False)

    async def test_together_with_a_host_that_host_is_given_its_step_again(self, tmp_path: Path) -> None:
        await self._kill(tmp_path, str(tmp_path / "comptoir.db"), with_host=True)

    async def _kill(self, tmp_path: Path, database_address: str, *, with_host: bool) -> None:
        gate = asyncio.Event()
        coordinator = Coordinator(tmp_path / "data", database_address, free_port())
        await first_people(coordinator)
        buyers = Buyers(coordinator)
        async with contextlib.AsyncExitStack() as stack:
            a = await stack.enter_async_context(serve_container(appends("a")))
            b = await stack.enter_async_context(serve_container(after(gate, appends("b"))))
            await coordinator.start()
            hosts = [
                HostProcess(tmp_path, name, coordinator.url, {name: one.url}) for name, one in (("a", a), ("b", b))
            ]
            try:
                for host in hosts:
                    stack.push_async_callback(host.kill)
                    await host.start()
                jobs = [await self._bought(buyers, ["a", "b", "a"]) for _ in range(3)]
                await b.came(3)

                assert await coordinator.end(signal.SIGKILL) == -signal.SIGKILL
                if with_host:
                    await hosts[1].kill()
                gate.set()
                await coordinator.start()
                if with_host:
                    await hosts[1].start()

                async with asyncio.timeout(30):
                    while "running" in {one["status"] for one in (await buyers.results(jobs)).values()}:
                        await asyncio.sleep(0.05)
                await buyers.check()
            finally:
                await coordinator.end(signal.SIGTERM)
            assert len(a.runs) == 6
            assert len(b.runs) == (6 if with_host else 3)
        db = open_database(database_address)
        try:
            await check_books(db, coordinator.data, database_address)
        finally:
            await db.close()

    async def _bought(self, buyers: Buyers, names: list[str]) -> str:
        """Buy a chain as soon as its hosts are there."""
        async with aiohttp.ClientSession(headers=buyers._headers()) as session, asyncio.timeout(20):
            while True:
                body = {"containers": names, "data": {}}
                async with session.post(f"{buyers.coordinator.url}/infernet/api/jobs", json=body) as answer:
                    if answer.status == 200:
                        job = str((await answer.json())["id"])
                        buyers.accepted[job] = names
                        return job
                await asyncio.sleep(0.05)
