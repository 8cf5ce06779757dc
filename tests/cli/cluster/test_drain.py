"""SIGTERM to one coordinator of several: open answers finish, its workers go to another at once, nobody is refused."""

import asyncio
import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from comptoir.cli.cluster.coordinator import Coordinator
from comptoir.cli.cluster.local import LocalCluster
from comptoir.cli.quickstart import Quickstart, read_quickstart
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig, run_worker
from tests.house.tree import ROOT
from tests.post import free_port
from tests.programs import running

TOKENS, PER_S = 140, 40.0
"""Three and a half seconds: longer than a stopping server waits for the last bytes of what it takes to be over."""

NOTICE_S = 2.0
"""How long a coordinator says that it leaves before it refuses jobs: HAProxy finds out within half a second here."""

CHEAP = {"token_out": 1_000}
"""A hundred credits last for all that is bought here."""

FEW = 10
"""For an answer that only has to come."""


@pytest.fixture(scope="module")
def place_of_all(run_folder: Path) -> Iterator[Path]:
    """A folder, not there yet, that PostgreSQL's user may pass through."""
    with tempfile.TemporaryDirectory(prefix="place-", dir=run_folder) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "data"


Here = tuple[LocalCluster, Quickstart]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(place_of_all: Path) -> AsyncIterator[Here]:
    """Run two coordinators that nobody starts again: each test starts those that it has drained."""
    cluster = LocalCluster(
        place_of_all, coordinators=2, fsync=False, drain_s=10.0, supervised=False,
        options=("--set", f"drain_notice_s={NOTICE_S}"),
    )  # fmt: skip
    try:
        await cluster.start()
        known = read_quickstart(place_of_all)
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
        url=url,
        key=known.admin_key,
        engines=[EngineSpec("bench.trivial_engine:TrivialEngine", {"per_s": PER_S})],
        slots=8,
        prices=CHEAP,
        measure=False,
        state_dir=str(state),
        drain_s=2.0,
    )
    task = asyncio.create_task(run_worker(config, on_event=lambda event: said.append(type(event).__name__), stop=stop))
    try:
        yield said
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


async def until_connected(said: list[str]) -> None:
    """Wait until a worker is linked."""
    async with asyncio.timeout(60):
        while "Connected" not in said:
            await asyncio.sleep(0.01)


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


async def until_asked(session: aiohttp.ClientSession, at: Coordinator) -> None:
    """Wait until buyers come to a coordinator that was started just now."""
    async with asyncio.timeout(30):
        while True:
            async with session.get(f"{at.url}/metrics", headers={"accept": "text/plain"}) as answer:
                if '/v1/chat/completions"' in await answer.text():
                    return
            await asyncio.sleep(0.05)


async def stream(session: aiohttp.ClientSession, url: str, begun: asyncio.Event, *, tokens: int = TOKENS) -> str:
    """Buy an answer and read it to its end; *begun* is set at its first token."""
    text = ""
    body = {"model": "trivial", "stream": True, "max_tokens": tokens, "messages": [{"role": "user", "content": "hi"}]}
    async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
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


@pytest.mark.asyncio(loop_scope="module")
class TestDrain:
    async def test_open_answers_finish_and_the_worker_goes_on_elsewhere(self, here: Here, tmp_path: Path) -> None:
        """Whether the worker is linked to the coordinator that leaves, or only its buyer is."""
        cluster, known = here
        for at in ("the drained", "the other"):
            await self._drained(cluster, known, tmp_path / f"worker at {at}", at=at)
            await cluster.coordinators[0].start()
            cluster.balancer.offer(cluster.coordinators[0].address)

    async def _drained(self, cluster: LocalCluster, known: Quickstart, state: Path, *, at: str) -> None:
        leaving, staying = cluster.coordinators
        linked_to = leaving if at == "the drained" else staying
        # Through the balancer, as every worker; who is linked to where is chosen by leaving no choice.
        other = staying if linked_to is leaving else leaving
        cluster.balancer.offer(other.address, open=False)
        headers = {"authorization": f"Bearer {known.key}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            worker(cluster.url, known, state) as said,
        ):
            await until_connected(said)
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
            assert await stream(session, cluster.url, asyncio.Event(), tokens=FEW) == " tok" * FEW
            assert said.count("Connected") == (2 if at == "the drained" else 1)
            assert "JobFailed" not in said


def haproxy_config(port: int, alive: int, coordinators: list[Coordinator]) -> str:
    """Return deploy/haproxy.cfg with the addresses of here, and nobody asked for names."""
    text = (ROOT / "deploy" / "haproxy.cfg").read_text()
    text = text.replace("bind :8080", f"bind 127.0.0.1:{port}").replace(
        "bind 127.0.0.1:8404", f"bind 127.0.0.1:{alive}"
    )
    assert "check inter 1s fastinter 500ms" in text
    text = text.replace("check inter 1s fastinter 500ms", "check inter 250ms fastinter 100ms")
    text = re.sub(r"^resolvers.*?(?=^frontend)", "", text, flags=re.MULTILINE | re.DOTALL)
    text = text.replace(" resolvers docker init-addr last,libc,none", "")
    text = re.sub(r"^    server .*\n", "", text, flags=re.MULTILINE)
    servers = "".join(f"    server {one.number} 127.0.0.1:{one.port}\n" for one in coordinators)
    return re.sub(r"(?=^frontend alive)", servers + "\n", text, flags=re.MULTILINE)


@contextlib.asynccontextmanager
async def haproxy(folder: Path, coordinators: list[Coordinator]) -> AsyncIterator[str]:
    """Run HAProxy before *coordinators*; gives its address."""
    program = shutil.which("haproxy")
    if program is None:
        pytest.skip(
            "HAPROXY IS NOT INSTALLED: no upgrade was tried behind deploy/haproxy.cfg (apt-get install haproxy)"
        )
    port = free_port()
    file = folder / "haproxy.cfg"
    file.write_text(haproxy_config(port, free_port(), coordinators))

    async def ready() -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            async with aiohttp.request("GET", f"http://127.0.0.1:{port}/house/status") as answer:
                return answer.status == 200
        return False

    async with running(program, "-db", "-q", "-f", file, ready=ready):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.asyncio(loop_scope="module")
class TestUpgrade:
    @pytest.mark.slow
    @pytest.mark.parametrize("balancer", ["ours", "HAProxy"])
    async def test_coordinators_are_restarted_one_by_one_and_nobody_notices(
        self, here: Here, tmp_path: Path, balancer: str
    ) -> None:
        """As docs/operating.md has it. Four buyers on connections they keep, through all of it: each answer comes
        whole."""
        cluster, known = here
        async with contextlib.AsyncExitStack() as stack:
            url = cluster.url
            if balancer == "HAProxy":
                url = await stack.enter_async_context(haproxy(tmp_path, cluster.coordinators))
            session = await stack.enter_async_context(
                aiohttp.ClientSession(headers={"authorization": f"Bearer {known.key}"})
            )
            for number in range(2):
                said = await stack.enter_async_context(worker(url, known, tmp_path / f"worker-{number}"))
                await until_connected(said)
            for one in cluster.coordinators:
                await until_offered(session, one)
            whole = 0

            async def buy() -> None:
                nonlocal whole
                while True:
                    assert await stream(session, url, asyncio.Event(), tokens=FEW) == " tok" * FEW
                    whole += 1

            async with asyncio.TaskGroup() as group:
                buyers = [group.create_task(buy()) for _ in range(4)]
                for one in cluster.coordinators:
                    one.drain()
                    assert await one.ended() == 0
                    await one.start()
                    cluster.balancer.offer(one.address)
                    await until_offered(session, one)
                    if balancer == "HAProxy":
                        # The next one only when it sends buyers here again; ours is told, and its buyers keep
                        # connections.
                        await until_asked(session, one)
                assert whole > 8
                for buyer in buyers:
                    buyer.cancel()
