"""SIGTERM to one coordinator of several: open answers finish, its workers go to another at once, nobody is refused."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from comptoir.cli.cluster.coordinator import Coordinator
from comptoir.cli.cluster.local import LocalCluster
from comptoir.cli.quickstart import Quickstart, read_quickstart
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig, run_worker
from tests.post import PRICE

TOKENS, PER_S = 140, 40.0
"""Three and a half seconds: longer than a stopping server waits for the last bytes of what it takes to be over."""

BODY = {
    "model": "trivial", "stream": True, "max_tokens": TOKENS, "messages": [{"role": "user", "content": "hi"}],
}  # fmt: skip


@contextlib.asynccontextmanager
async def cluster_in(place: Path) -> AsyncIterator[tuple[LocalCluster, Quickstart]]:
    """Run two coordinators that nobody starts again."""
    cluster = LocalCluster(place, coordinators=2, fsync=False, drain_s=10.0, supervised=False)
    try:
        await cluster.start()
        known = read_quickstart(place)
        assert known is not None
        yield cluster, known
    finally:
        await cluster.stop()


@contextlib.asynccontextmanager
async def worker(url: str, known: Quickstart, state: Path) -> AsyncIterator[list[str]]:
    """Run a worker; gives the kinds of its events as they come."""
    stop = asyncio.Event()
    said: list[str] = []
    config = WorkerConfig(
        url=url, key=known.admin_key, engines=[EngineSpec("bench.trivial_engine:TrivialEngine", {"per_s": PER_S})], slots=8,
        price=PRICE, measure=False, state_dir=str(state), drain_s=2.0,
    )  # fmt: skip
    task = asyncio.create_task(run_worker(config, on_event=lambda event: said.append(type(event).__name__), stop=stop))
    try:
        yield said
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


async def until_offered(session: aiohttp.ClientSession, at: Coordinator) -> None:
    """Wait until a coordinator knows a host for the model."""
    async with asyncio.timeout(30):
        while True:
            async with session.get(f"{at.url}/house/models") as answer:
                found = await answer.json()
                if "models" not in found:
                    print(at.url, answer.status, found)
                if found.get("models"):
                    return
            await asyncio.sleep(0.02)


async def stream(session: aiohttp.ClientSession, url: str, begun: asyncio.Event) -> str:
    """Buy an answer and read it to its end; *begun* is set at its first token."""
    text = ""
    async with session.post(f"{url}/v1/chat/completions", json=BODY) as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:])["choices"]
                text += "".join(one["delta"].get("content") or "" for one in choices)
                if text:
                    begun.set()
            elif line.startswith(b"data: [DONE]"):
                return text
    raise AssertionError(f"the stream broke off after {text!r}")


class TestDrain:
    @pytest.mark.parametrize("at", ["the drained", "the other"])
    async def test_open_answers_finish_and_the_worker_goes_on_elsewhere(self, place: Path, at: str) -> None:
        """Whether the worker is linked to the coordinator that leaves, or only its buyer is."""
        async with cluster_in(place) as (cluster, known):
            leaving, staying = cluster.coordinators
            linked_to = leaving if at == "the drained" else staying
            # Through the balancer, as every worker; who is linked to where is chosen by leaving no choice.
            other = staying if linked_to is leaving else leaving
            cluster.balancer.offer(other.address, open=False)
            headers = {"authorization": f"Bearer {known.key}"}
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                worker(cluster.url, known, place / "worker") as said,
            ):
                await until_offered(session, leaving)
                await until_offered(session, staying)
                cluster.balancer.offer(other.address)
                begun = asyncio.Event()
                reading = asyncio.create_task(stream(session, leaving.url, begun))
                await begun.wait()

                leaving.drain()
                assert await reading == " tok" * TOKENS
                assert await leaving.ended() == 0

                # Nobody was refused: the worker is at the other one before anybody asks, or the job waits that moment.
                assert await stream(session, cluster.url, asyncio.Event()) == " tok" * TOKENS
                assert said.count("Connected") == (2 if at == "the drained" else 1)
                assert "JobFailed" not in said
