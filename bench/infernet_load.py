"""Load on a node's API: jobs that are bought and fetched, over kept connections or a new one for every call, and
streams."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from bench.bench_lives import Connection

TOGETHER = 800
"""Jobs that are bought before any is fetched: fewer than a coordinator keeps in memory after their end."""

LOOK_EVERY_S = 0.02
"""How often it is asked whether all are over; a call a round is not to be seen in the figures."""

ID_ALONE = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\n")

Ask = Callable[[str, str, bytes], Awaitable[bytes]]
"""Method, path, body; gives the body of the answer, which has to be a 200."""


@dataclass
class Seen:
    """What the clients saw; times in seconds."""

    wall_s: float = 0.0
    completed_s: float = 0.0
    """Until no job was left, where jobs are only bought."""
    post_s: list[float] = field(default_factory=list)
    glued: int = 0
    """Streams whose first piece was not the id alone."""
    broken: int = 0
    first_data_s: list[float] = field(default_factory=list)


def kept(connection: Connection) -> Ask:
    """Return how to ask over one connection."""

    async def ask(method: str, path: str, body: bytes = b"") -> bytes:
        status, answer = await connection.ask(method, path, "", body)
        if status != 200:
            raise SystemExit(f"{method} {path}: {status} {answer!r}")
        return answer

    return ask


def anew(port: int) -> Ask:
    """Return how to ask as Infernet's client does: aiohttp, a session and a connection for every call."""

    async def ask(method: str, path: str, body: bytes = b"") -> bytes:
        headers = {"Content-Type": "application/json"} if body else {}
        url = f"http://127.0.0.1:{port}{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, data=body or None, headers=headers) as answer,
        ):
            said = await answer.read()
            if answer.status != 200:
                raise SystemExit(f"{method} {path}: {answer.status} {said!r}")
            return said

    return ask


def job(*containers: str) -> bytes:
    """Spell a job."""
    return msgspec.json.encode({"containers": containers, "data": {"text": "Ritual Infernet"}})


class Load:
    """Load on the node at *port*."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def _asks(self, clients: int, *, keep: bool) -> tuple[list[Ask], list[Connection]]:
        if not keep:
            return [anew(self.port)] * clients, []
        connections = [await Connection.open(self.port) for _ in range(clients)]
        return [kept(connection) for connection in connections], connections

    async def lives(self, body: bytes, *, jobs: int, clients: int, keep: bool = True) -> Seen:
        """Buy *jobs*, some hundreds at a time, and fetch each once they are over; *body* is one job, or a batch."""
        seen = Seen()
        asks, connections = await self._asks(clients, keep=keep)
        started = time.perf_counter()
        for _ in range(0, jobs, TOGETHER):
            bought = await self._buy(asks, body, min(jobs, TOGETHER), seen)
            await self._over(asks[0])
            each = iter(bought)
            await asyncio.gather(*(self._fetch(ask, each) for ask in asks))
        seen.wall_s = time.perf_counter() - started
        for connection in connections:
            connection.close()
        return seen

    async def _buy(self, asks: list[Ask], body: bytes, jobs: int, seen: Seen) -> list[list[str]]:
        """Return the ids of what was bought, by call."""
        bought: list[list[str]] = []
        left, together = [jobs], body.count(b'"containers"')
        path = "/api/jobs/batch" if body.startswith(b"[") else "/api/jobs"

        async def client(ask: Ask) -> None:
            while left[0] > 0:
                left[0] -= together
                started = time.perf_counter()
                answer: Any = msgspec.json.decode(await ask("POST", path, body))
                seen.post_s.append(time.perf_counter() - started)
                bought.append([one["id"] for one in (answer if isinstance(answer, list) else [answer])])

        await asyncio.gather(*(client(ask) for ask in asks))
        return bought

    async def _over(self, ask: Ask) -> None:
        """Wait until the node says that nothing is pending."""
        while msgspec.json.decode(await ask("GET", "/info", b""))["pending"]["offchain"]:
            await asyncio.sleep(LOOK_EVERY_S)

    async def _fetch(self, ask: Ask, bought: Iterator[list[str]]) -> None:
        """Fetch what was bought with one call by one call too."""
        for ids in bought:
            results = msgspec.json.decode(await ask("GET", "/api/jobs?" + "&".join(f"id={one}" for one in ids), b""))
            if [result["status"] for result in results] != ["success"] * len(ids):
                raise SystemExit(f"jobs failed: {results[:2]}")

    async def burst(self, body: bytes, *, jobs: int, clients: int) -> Seen:
        """Only buy, and wait for the last job."""
        seen = Seen()
        asks, connections = await self._asks(clients, keep=True)
        started = time.perf_counter()
        await self._buy(asks, body, jobs, seen)
        seen.wall_s = time.perf_counter() - started
        await self._over(asks[0])
        seen.completed_s = time.perf_counter() - started
        for connection in connections:
            connection.close()
        return seen

    async def streams(self, body: bytes, *, together: int, rounds: int) -> Seen:
        """Read *together* streams at once, as Infernet's client does: by ``iter_any``, the first piece is the id."""
        seen = Seen()

        async def one(session: aiohttp.ClientSession) -> None:
            started = time.perf_counter()
            number, size = 0, 0
            try:
                async with session.post(f"http://127.0.0.1:{self.port}/api/jobs/stream", json=body) as answer:
                    async for piece in answer.content.iter_any():
                        number += 1
                        if number == 1:
                            seen.glued += ID_ALONE.fullmatch(piece) is None
                            size -= 37
                        if number == 2:
                            seen.first_data_s.append(time.perf_counter() - started)
                        size += len(piece)
            except aiohttp.ClientError:
                size = -1
            seen.broken += size != 100

        def encode(body: bytes) -> str:
            return body.decode()

        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, json_serialize=encode) as session:
            for _ in range(rounds):
                await asyncio.gather(*(one(session) for _ in range(together)))
        return seen

    async def get(self, path: str) -> bytes:
        """Ask once."""
        return await anew(self.port)("GET", path, b"")

    async def latencies(self, path: str, *, count: int) -> tuple[list[float], int]:
        """Ask *count* times, one after the other; return seconds each, and the bytes of an answer."""
        asks, (connection,) = await self._asks(1, keep=True)
        took: list[float] = []
        for _ in range(count):
            started = time.perf_counter()
            answer = await asks[0]("GET", path, b"")
            took.append(time.perf_counter() - started)
        connection.close()
        return took, len(answer)
