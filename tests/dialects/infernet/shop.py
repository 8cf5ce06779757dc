"""A trading post whose hosts stand before containers of the test's making, and a client down to the bytes."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from comptoir.dispatch import Core
from comptoir.kinds import MILLION
from comptoir.worker.engines.container import ContainerEngine
from comptoir.worker.engines.container_spec import ContainerSpec
from tests.post import Post, open_post
from tests.worker.engines.container_stand_in import Answer, ContainerStandIn, appends, serve_container

RUN_UUSD = 1_000
"""What a run costs here."""

PLENTY = {
    "infernet_requests_per_minute": 1_000_000,
    "requests_per_minute_per_key": 1_000_000,
    "infernet_anonymous": "loopback",
}


@dataclass
class Said:
    """One whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)  # Reads numbers of any size.


@dataclass
class Node:
    """Everything a test of the dialect needs."""

    post: Post
    session: aiohttp.ClientSession
    prefix: str = ""
    containers: dict[str, ContainerStandIn] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.post.url + self.prefix

    @property
    def core(self) -> Core:
        return self.post.core

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str = "", headers: Mapping[str, str] | None = None
    ) -> Said:
        """Send one request; *body* is JSON, or bytes as they are, which are said to be JSON too."""
        data = body if isinstance(body, bytes | None) else msgspec.json.encode(body)
        given = {"Content-Type": "application/json", **(headers or {})} if body is not None else dict(headers or {})
        if key:
            given["Authorization"] = f"Bearer {key}"
        async with self.session.request(method, self.url + path, data=data, headers=given) as answer:
            return Said(answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read())

    async def until(self, path: str, expected: object) -> None:
        """Wait until ``GET`` *path* answers *expected*, which is to be told apart from what it answered before."""
        async with asyncio.timeout(10):
            while (await self.ask("GET", path)).json != expected:
                await asyncio.sleep(0.01)

    async def job(self, *containers: str, key: str = "", **fields: Any) -> str:
        """Buy a job that is taken; return its id."""
        said = await self.ask("POST", "/api/jobs", {"containers": containers, "data": {}} | fields, key=key)
        assert said.status == 200, said.body
        return str(said.json["id"])

    async def results(self, *ids: str, key: str = "", intermediate: bool = False) -> list[dict[str, Any]]:
        """Ask how jobs stand."""
        query = "&".join(f"id={one}" for one in ids) + ("&intermediate=true" if intermediate else "")
        said = await self.ask("GET", f"/api/jobs?{query}", key=key)
        assert said.status == 200, said.body
        found: list[dict[str, Any]] = said.json
        return found

    async def result(self, job: str, *, key: str = "", intermediate: bool = False) -> dict[str, Any]:
        """Wait until a job is over; return its result."""
        async with asyncio.timeout(20):
            while True:
                (found,) = await self.results(job, key=key, intermediate=intermediate)
                if found["status"] != "running":
                    return found
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def host(
        self, *specs: ContainerSpec, name: str = "containers", slots: int = 8, run_uusd: int = RUN_UUSD
    ) -> AsyncIterator[asyncio.Event]:
        """Run a worker that serves containers."""
        async with self.post.worker(
            engine="tests.dialects.infernet.shop:several",
            options={"specs": specs},
            name=name,
            slots=slots,
            prices={"run": run_uusd * MILLION},
        ) as stop:
            yield stop


def several(*, specs: Any, slots: int = 8) -> ContainerEngine:
    """Make an engine of several containers; the registry calls it."""
    return ContainerEngine.of(specs, slots=slots)


@contextlib.asynccontextmanager
async def open_node(
    folder: Path,
    *,
    answers: Mapping[str, Answer] | None = None,
    cards: Mapping[str, Mapping[str, Any]] | None = None,
    resources: Mapping[str, bytes] | None = None,
    prefix: str = "",
    database: str = "",
    **settings: Any,
) -> AsyncIterator[Node]:
    """Start a trading post with one host that serves a container for each of *answers*.

    Args:
        answers: what each container does; ``a``, ``b`` and ``c`` append their names unless given.
        cards: further fields of their `ContainerSpec`.
        resources: what each says of itself from the start, where that matters; one that is not named says nothing.
    """
    does = answers if answers is not None else {name: appends(name) for name in "abc"}
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        post = await enter(open_post(folder, database=database, **{**PLENTY, **settings}))
        session = await enter(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)))
        node = Node(post, session, prefix)
        for name, answer in does.items():
            node.containers[name] = await enter(serve_container(answer))
            if resources is not None:
                node.containers[name].resources = resources.get(name)
        specs = [
            ContainerSpec(id=name, url=one.url, **(cards or {}).get(name, {})) for name, one in node.containers.items()
        ]
        if specs:
            await enter(node.host(*specs))
        yield node
