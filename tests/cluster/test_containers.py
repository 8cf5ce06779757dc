"""Chains of containers over several coordinators: bought at one, run by hosts of others, read and asked about at
any."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comptoir.cluster import resource_sync
from comptoir.dispatch import watch
from comptoir.dispatch.buyers import Buyers
from comptoir.kinds import MILLION
from comptoir.ledger import ANONYMOUS_CALLERS
from comptoir.receipts import AuthenticatedBy, InTotoStatement, read_registry, verify
from comptoir.worker.engines.container_spec import ContainerSpec
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig, run_worker
from tests.at_once import at_once
from tests.cluster.posts import Posts, coordinator, open_posts, peers_of
from tests.cluster.test_moving import fall_silent
from tests.dialects.infernet.shop import PLENTY, RUN_UUSD, Node
from tests.post import Post
from tests.redis_server import RedisServer
from tests.worker.engines.container_stand_in import (
    RESOURCES,
    Answer,
    ContainerStandIn,
    after,
    appends,
    serve_container,
    streams,
)

MODEL = "storage/owner/name:file"


@dataclass
class Shop:
    """Several coordinators, a client of each, and the containers of this test."""

    posts: Posts
    nodes: list[Node]
    stack: contextlib.AsyncExitStack
    containers: dict[str, list[ContainerStandIn]] = field(default_factory=dict)

    async def host(self, at: int, *, seen_by: tuple[int, ...] = (0, 1), **answers: Answer) -> None:
        """Link a host of these containers to one coordinator, and wait until others know of it."""
        specs = []
        for name, answer in answers.items():
            one = await self.stack.enter_async_context(serve_container(answer))
            self.containers.setdefault(name, []).append(one)
            specs.append(ContainerSpec(id=name, url=one.url, description=f"says {name}"))
        name = f"at{at}-{'-'.join(answers)}-{len(self.containers)}"
        await self.stack.enter_async_context(self.nodes[at].host(*specs, name=name))
        for core in [self.nodes[one].core for one in seen_by]:
            await self.posts.until(
                lambda core=core: set(answers) <= {one.name for one in core.fleet.catalog.containers()}
            )

    def runs(self, name: str) -> int:
        """How often a container has run, at all its hosts."""
        return sum(len(one.runs) for one in self.containers[name])

    async def receipt(self, job: str, *, at: int = 0) -> InTotoStatement:
        """Verify a job's receipt with nothing but the registry."""
        core = self.nodes[at].core
        envelope = await core.receipts.envelope_of(bytes.fromhex(job.replace("-", "")))
        verdict = verify(envelope, read_registry(await core.receipts.registry()))
        assert verdict.ok and verdict.statement is not None, verdict
        return verdict.statement

    def key(self) -> str:
        return self.nodes[0].post.buyer_key


@contextlib.asynccontextmanager
async def open_shop(
    folder: Path, database: str, redis_server: RedisServer, *, count: int = 2, **settings: Any
) -> AsyncIterator[Shop]:
    """Open *count* coordinators; the books are audited at the end."""
    async with contextlib.AsyncExitStack() as stack:
        given = {**PLENTY, **settings}
        posts = await stack.enter_async_context(
            open_posts(folder, database=database, bus=redis_server.url, count=count, **given)
        )
        for post in posts.each:
            post.forged = posts.forged = False
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)))
        yield Shop(posts, [Node(post, session) for post in posts.each], stack)


@pytest.fixture
async def shop(tmp_path: Path, postgres_address: str, redis_server: RedisServer) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path, postgres_address, redis_server) as opened:
        yield opened


@contextlib.asynccontextmanager
async def mortal_host(post: Post, spec: ContainerSpec) -> AsyncIterator["asyncio.Task[None]"]:
    """Run a worker that a test may cancel, which is as if its process were killed."""
    engine = EngineSpec("tests.dialects.infernet.shop:several", {"specs": [spec]})
    config = WorkerConfig(
        url=post.url,
        engines=[engine],
        slots=4,
        prices={"run": RUN_UUSD * MILLION},
        measure=False,
        state_dir=str(post.folder / f"mortal-{spec.id}"),
        drain_s=0.0,
    )
    task: asyncio.Task[None] = asyncio.create_task(run_worker(config, stop=asyncio.Event()))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class TestChain:
    async def test_its_steps_run_wherever_their_hosts_are_linked(
        self, tmp_path: Path, postgres_address: str, redis_server: RedisServer
    ) -> None:
        async with open_shop(tmp_path, postgres_address, redis_server, count=3) as shop:
            await shop.host(1, seen_by=(0, 1, 2), a=appends("a"), c=appends("c"))
            await shop.host(2, seen_by=(0, 1, 2), b=appends("b"))
            key, want = shop.key(), {"said": ["a", "b", "c"]}

            jobs = [await shop.nodes[0].job("a", "b", "c", key=key) for _ in range(5)]
            jobs += [await shop.nodes[0].job("b", "b", "a", key=key)]

            for number, job in enumerate(jobs[:5]):
                found = await shop.nodes[number % 3].result(job, key=key, intermediate=True)
                assert (found["status"], found["result"]) == ("success", {"container": "c", "output": want})
                assert [one["output"]["said"] for one in found["intermediate_results"]] == [["a"], ["a", "b"]]
            assert (await shop.nodes[1].result(jobs[5], key=key))["result"]["output"] == {"said": ["b", "b", "a"]}
            for node in shop.nodes:
                listed = await node.ask("GET", "/api/jobs?pending=false", key=key)
                assert listed.json == jobs[::-1]
                assert (await node.ask("GET", "/api/jobs?pending=true", key=key)).json == []
            assert (shop.runs("a"), shop.runs("b"), shop.runs("c")) == (6, 7, 5)
            predicate = (await shop.receipt(jobs[0], at=2)).predicate
            assert predicate.model == "a,b,c"
            assert [each.authenticated_by for each in predicate.segments] == [AuthenticatedBy.SIGNATURE] * 3
            for core in shop.posts.cores:
                await shop.posts.until(lambda core=core: not core.state(Buyers).in_flight.counts())
                assert (len(core.jobs.live), core.jobs.live.leased, core.jobs.live.mirrors) == (0, 0, {})

    async def test_a_step_may_come_back_to_where_the_job_was_bought(self, shop: Shop) -> None:
        """What stood here as a mirror of the first step is the job again, and at another container."""
        await shop.host(1, a=appends("a"), c=appends("c"))
        await shop.host(0, b=appends("b"))

        found = await shop.nodes[0].result(await shop.nodes[0].job("a", "b", "c", "b"))

        assert (found["status"], found["result"]["output"]) == ("success", {"said": ["a", "b", "c", "b"]})
        assert (shop.runs("a"), shop.runs("b"), shop.runs("c")) == (1, 2, 1)

    async def test_what_was_made_so_far_is_seen_at_any(self, shop: Shop) -> None:
        """The job is the other coordinator's by then, so that its frames are not here: the database has them."""
        gate = asyncio.Event()
        await shop.host(1, a=appends("a"), b=after(gate, appends("b")))
        job = await shop.nodes[0].job("a", "b")
        await shop.containers["b"][0].came()
        # Where it was bought that is news, some milliseconds late.
        await shop.posts.until(lambda: shop.nodes[0].core.jobs.live.mirrors)

        for node in shop.nodes:
            (found,) = await node.results(job, intermediate=True)
            assert (found["status"], found["result"]) == ("running", None)
            assert found["intermediate_results"] == [{"container": "a", "output": {"said": ["a"]}}]
            assert (await node.ask("GET", "/api/jobs?pending=true")).json == [job]
        gate.set()
        assert (await shop.nodes[0].result(job))["result"]["output"] == {"said": ["a", "b"]}

    async def test_a_step_whose_host_dies_is_done_by_one_elsewhere(self, shop: Shop) -> None:
        never = asyncio.Event()
        await shop.host(0, a=appends("a"))
        async with (
            serve_container(after(never)) as stuck,
            mortal_host(shop.posts[0], ContainerSpec(id="b", url=stuck.url)) as dying,
        ):
            await shop.posts.until(lambda: len(shop.nodes[0].core.channels) == 2)
            job = await shop.nodes[0].job("a", "b")
            await stuck.came()
            await shop.host(1, b=appends("b"))

            dying.cancel()

            found = await shop.nodes[1].result(job)
        assert (found["status"], found["result"]["output"]) == ("success", {"said": ["a", "b"]})
        assert (shop.runs("a"), len(stuck.runs)) == (1, 1)
        assert (await shop.receipt(job)).predicate.amounts.charged_uusd == 2 * RUN_UUSD


class TestOwner:
    async def test_one_that_dies_between_two_steps_is_replaced_and_the_first_is_not_run_again(
        self, tmp_path: Path, postgres_address: str, redis_server: RedisServer
    ) -> None:
        async with open_shop(tmp_path, postgres_address, redis_server, count=3) as shop:
            async with serve_container() as away:
                async with shop.nodes[1].host(ContainerSpec(id="b", url=away.url), name="leaves"):
                    await shop.host(1, a=appends("a"))
                # Known, and nowhere: the second step waits.
                await shop.posts.until(lambda: len(shop.nodes[0].core.fleet.catalog.containers()) == 1)
            job = await shop.nodes[0].job("a", "b")
            job_id = bytes.fromhex(job.replace("-", ""))
            owner = shop.nodes[1].core
            await shop.posts.until(lambda: job_id in owner.jobs.queue)
            again = await fall_silent(shop.posts[1])
            taking = [shop.nodes[0].core, shop.nodes[2].core]
            await shop.posts.until(lambda: any(core.jobs.live.get(job_id) for core in taking), within_s=15)

            await shop.host(2, seen_by=(0, 2), b=appends("b"))

            found = await shop.nodes[0].result(job, intermediate=True)
            again()
            assert (found["status"], found["result"]["output"]) == ("success", {"said": ["a", "b"]})
            assert (shop.runs("a"), shop.runs("b")) == (1, 1)
            assert len((await shop.receipt(job)).predicate.segments) == 2


class TestStream:
    async def test_it_is_read_here_from_a_host_there(self, shop: Shop) -> None:
        await shop.host(1, a=appends("a"), b=streams(b"one ", b"two ", b"\xff"))
        body = {"containers": ["a", "b"], "data": {}}
        async with shop.nodes[0].session.post(shop.nodes[0].url + "/api/jobs/stream", json=body) as answer:
            pieces = [piece async for piece in answer.content.iter_any()]

        assert (len(pieces[0]), pieces[0][-1:], b"".join(pieces[1:])) == (37, b"\n", b"one two \xff")
        found = await shop.nodes[1].result(pieces[0].decode().strip())
        assert found["result"]["output"] == {"output_base64": "b25lIHR3byD/"}

    async def test_it_is_cut_when_the_host_there_dies(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """Though another host has the container: what was shown can't be taken back, and its rest would be
        another's."""
        monkeypatch.setattr(watch, "RELINK_S", 0.3)
        body = {"containers": ["a"], "data": {}}
        async with (
            serve_container(streams(b"half", asyncio.Event())) as stuck,
            mortal_host(shop.posts[1], ContainerSpec(id="a", url=stuck.url)) as dying,
        ):
            await shop.posts.until(shop.nodes[0].core.fleet.catalog.containers)
            async with shop.nodes[0].session.post(shop.nodes[0].url + "/api/jobs/stream", json=body) as answer:
                job = (await answer.content.readline()).decode().strip()
                assert await answer.content.readany() == b"half"
                await shop.host(1, a=streams(b"another"))
                dying.cancel()
                with pytest.raises(aiohttp.ClientPayloadError):
                    await answer.content.readany()
        assert shop.runs("a") == 0
        for node in shop.nodes:
            assert (await node.result(job))["status"] == "failed"

    async def test_it_is_cut_when_its_frames_are_lost_and_nobody_pays_for_what_follows(self, shop: Shop) -> None:
        await shop.host(1, a=streams(b"half", asyncio.Event()))
        body = {"containers": ["a"], "data": {}}
        async with shop.nodes[0].session.post(shop.nodes[0].url + "/api/jobs/stream", json=body) as answer:
            job = (await answer.content.readline()).decode().strip()
            assert await answer.content.readany() == b"half"
            (mirror,) = shop.nodes[0].core.jobs.live.mirrors.values()
            peers_of(shop.nodes[0].core).mirrors._break_off(mirror)
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.content.readany()

        async with asyncio.timeout(10):
            await shop.containers["a"][0].runs[0].ended.wait()
        assert (await shop.nodes[1].result(job))["result"]["error"] == "the client hung up"

    async def test_who_hangs_up_here_stops_the_container_there(self, shop: Shop) -> None:
        never = asyncio.Event()
        await shop.host(1, a=streams(b"half", never))
        answer = await shop.nodes[0].session.post(
            shop.nodes[0].url + "/api/jobs/stream", json={"containers": ["a"], "data": {}}
        )
        job = (await answer.content.readline()).decode().strip()
        assert await answer.content.readany() == b"half"

        answer.close()

        async with asyncio.timeout(10):
            await shop.containers["a"][0].runs[0].ended.wait()
        assert (await shop.nodes[1].result(job))["status"] == "failed"


class TestShared:
    async def test_a_reported_status_is_seen_at_any(self, shop: Shop) -> None:
        body = {"id": "work-1", "status": "success", "containers": ["a"]}
        assert (await shop.nodes[0].ask("PUT", "/api/status", body)).status == 200

        (found,) = await shop.nodes[1].results("work-1")
        assert (found["id"], found["status"]) == ("work-1", "success")

    async def test_the_dialects_rate_counts_everywhere(
        self, tmp_path: Path, postgres_address: str, redis_server: RedisServer
    ) -> None:
        async with open_shop(tmp_path, postgres_address, redis_server, infernet_requests_per_minute=20) as shop:
            for _ in range(20):
                assert (await shop.nodes[0].ask("GET", "/info")).status == 200

            async with asyncio.timeout(10):
                while (await shop.nodes[1].ask("GET", "/info")).status != 429:
                    await asyncio.sleep(0.02)

    async def test_callers_without_a_key_have_one_allowance_at_all_of_them(
        self, tmp_path: Path, postgres_address: str, redis_server: RedisServer
    ) -> None:
        most = {"infernet_anonymous_uusd_per_day": 7 * RUN_UUSD + RUN_UUSD // 2}
        async with open_shop(tmp_path, postgres_address, redis_server, **most) as shop:
            await shop.host(1, a=appends("a"))
            body = {"containers": ["a"], "data": {}}

            asked = [shop.nodes[number % 2].ask("POST", "/api/jobs", body) for number in range(20)]
            statuses = [said.status for said in await asyncio.gather(*asked)]

            assert (statuses.count(200), statuses.count(402)) == (7, 13)
            for core in shop.posts.cores:
                await shop.posts.until(lambda core=core: not core.state(Buyers).in_flight.counts())
            account = await shop.nodes[0].core.ledger.account(ANONYMOUS_CALLERS)
            assert (account.balance_uusd, account.held_uusd) == (RUN_UUSD // 2, 0)


class TestNode:
    async def test_containers_and_their_words_are_told_where_no_host_is(self, shop: Shop) -> None:
        await shop.host(1, a=appends("a"))
        node = shop.nodes[0]
        told = {"id": "a", "description": "says a", "external": True, "image": ""}
        assert (await node.ask("GET", "/info")).json["containers"] == [told]

        await shop.posts.until(node.core.fleet.resources)

        assert (await node.ask("GET", "/resources")).body == b'{"a":' + RESOURCES + b"}"

    async def test_who_comes_later_is_told_all_of_it(
        self, tmp_path: Path, postgres_address: str, redis_server: RedisServer
    ) -> None:
        async with open_shop(tmp_path, postgres_address, redis_server) as shop:
            await shop.host(1, a=appends("a"))
            await shop.posts.until(shop.nodes[1].core.fleet.resources)
            async with coordinator(tmp_path, database=postgres_address, bus=redis_server.url, **PLENTY) as (core, _):
                await shop.posts.until(core.fleet.resources)
                assert core.fleet.resources() == {"a": RESOURCES}

    async def test_nothing_is_told_of_a_host_that_left(self, shop: Shop) -> None:
        node = shop.nodes[0]
        async with serve_container() as one:
            async with shop.nodes[1].host(ContainerSpec(id="a", url=one.url)):
                await shop.posts.until(node.core.fleet.resources)
            await shop.posts.until(lambda: not node.core.fleet.resources())
        assert (await node.ask("GET", "/info")).json["containers"] == []

    async def test_jobs_under_way_are_counted_at_all_of_them(self, shop: Shop) -> None:
        gate = asyncio.Event()
        await shop.host(1, a=after(gate, appends("a")))
        jobs = [await node.job("a") for node in shop.nodes for _ in range(2)]

        async def pending(node: Node) -> int:
            return int((await node.ask("GET", "/info")).json["pending"]["offchain"])

        async def until(count: int) -> None:
            async with asyncio.timeout(10):
                while [await pending(node) for node in shop.nodes] != [count, count]:
                    await asyncio.sleep(0.05)

        await until(4)
        gate.set()
        for job in jobs:
            await shop.nodes[0].result(job)
        await until(0)


class TestModelSupport:
    async def test_it_is_asked_at_the_coordinator_that_has_the_host_and_remembered(self, shop: Shop) -> None:
        await shop.host(1, a=appends("a"))
        node, (container,) = shop.nodes[0], shop.containers["a"]
        await node.until(f"/resources?model_id={MODEL}", {"a": {"supported": True}})

        asked = [path for path in container.asked if "model_id" in path]
        for each in shop.nodes * 3:
            assert (await each.ask("GET", f"/resources?model_id={MODEL}")).json == {"a": {"supported": True}}
        assert [path for path in container.asked if "model_id" in path] == asked == asked[:1]

    async def test_a_question_that_nobody_answers_ends(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resource_sync, "ANSWER_S", 0.05)
        await shop.host(1, a=appends("a"))
        shop.containers["a"][0].silent = True
        node = shop.nodes[0]

        async with at_once(ms=1000):  # What Infernet's client waits.
            said = await node.ask("GET", f"/resources?model_id={MODEL}")

        assert "has not answered yet" in said.json["a"]["error"]
        (host,) = node.core.fleet
        assert await asyncio.wait_for(peers_of(node.core).resource_sync.inquire(host.id, "a", MODEL), 5) == b""

    async def test_hosts_that_are_not_there_are_not_asked(self, shop: Shop) -> None:
        await shop.host(1, a=appends("a"))
        peers, here = peers_of(shop.nodes[0].core), peers_of(shop.nodes[1].core)
        (host,) = shop.nodes[1].core.fleet
        assert await here.resource_sync.inquire(host.id, "a", MODEL) == b""
        assert await peers.resource_sync.inquire(b"?" * 16, "a", MODEL) == b""
        assert json.loads(await asyncio.wait_for(peers.resource_sync.inquire(host.id, "a", MODEL), 5)) == {
            "supported": True
        }
        assert not peers.resource_sync._asked
