"""One trading post of one, two and three coordinators over PostgreSQL and Redis, all of it on this machine's cores.

Lives: chat completions through the link, spread over the coordinators, with everything on. Claims: processes that each
    lease jobs of their own, as fast as the database takes it. Frames: what a stream costs that is read at another
    coordinator than its host's, against one read at the same, in turns. Recovery: kill -9 of a coordinator, to the next
    frame of the streams that its host was serving, and to the start of jobs that waited in its line.

Usage: ``PYTHONPATH=src:. python -m bench.bench_cluster [lives|claims|frames|recovery …]``; all of them take about two
    minutes.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import msgspec
import uvloop

from bench import bench_claims
from bench.bench_completions import STAMP, Server
from bench.bench_lives import postgres
from bench.http_load import Result, percentile
from comptoir.cli.cluster.coordinator import Coordinator
from comptoir.cli.cluster.local import LocalCluster
from comptoir.cli.quickstart import read_quickstart
from comptoir.kit.clock import Clock
from comptoir.kit.db import Database, open_database
from comptoir.ledger import Ledger
from comptoir.nodes import NODE_SILENT_S

COUNTS = (1, 2, 3)
OPTIONS = ("--set", "requests_per_minute_per_key=100000000", "--set", "signup_credits_uusd=1000000000")
STREAMS, PER_S, STREAM_TOKENS = 16, 50, 150
DEATHS = 5
WITHIN_S = 60.0
"""A bound for everything that is waited for."""


@contextlib.asynccontextmanager
async def cluster(coordinators: int) -> AsyncIterator[tuple[LocalCluster, str, Database]]:
    """Run a cluster that nobody mends; give it, a rich buyer's key, and its database."""
    with tempfile.TemporaryDirectory(prefix="comptoir-cluster-") as folder:
        os.chmod(folder, 0o755)
        made = LocalCluster(
            Path(folder) / "data", coordinators=coordinators, options=OPTIONS, drain_s=1.0, supervised=False
        )
        try:
            await made.start()
            known = read_quickstart(made.data)
            assert known is not None
            db = open_database(made.database)
            for (buyer,) in await db.fetch("SELECT id FROM accounts WHERE kind = 'buyer'"):
                await Ledger(db, Clock()).deposit(owner_id=bytes(buyer), amount_uusd=10**13)
            yield made, known.key, db
            await db.close()
        finally:
            await made.stop()


@contextlib.asynccontextmanager
async def worker(url: str, folder: Path, slots: int = 256, **options: object) -> AsyncIterator[None]:
    """Run a worker with the trivial engine, linked to *url*, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.bench_completions",
        "worker",
        url,
        str(folder),
        msgspec.json.encode(options).decode(),
        str(slots),
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


def server(one: Coordinator, key: str) -> Server:
    return Server(one.pid, one.url, key)


async def answered(at: Server, model: str = "trivial") -> None:
    """Wait until *at* gets an answer from *model*, wherever its host is."""
    body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"Authorization": f"Bearer {at.key}"}
    async with asyncio.timeout(WITHIN_S), aiohttp.ClientSession(headers=headers) as session:
        while True:
            async with session.post(f"http://127.0.0.1:{at.port}/v1/chat/completions", json=body) as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.05)


# -- lives and claims --------------------------------------------------------------------------------------------


async def lives(clients: int = 48, requests: int = 4500) -> None:
    """Measure whole jobs a second with one, two and three coordinators."""
    alone = 0.0
    for count in COUNTS:
        async with cluster(count) as (made, key, _), contextlib.AsyncExitStack() as stack:
            for number in range(2):
                folder = made.data / f"bench-worker-{number}"
                await stack.enter_async_context(worker(made.coordinators[number % count].url, folder))
            servers = [server(one, key) for one in made.coordinators]
            for one in servers:
                await answered(one)
                await one.run(clients=8, requests=200)
            began = time.perf_counter()
            runs = [one.run(clients=clients // count, requests=requests // count) for one in servers]
            seen: list[tuple[Result, float]] = await asyncio.gather(*runs)
            wall_s = time.perf_counter() - began
        rate = requests / wall_s
        alone = alone or rate
        latencies = [each for result, _ in seen for each in result.latencies_s]
        print(
            f"lives, {count} coordinators: {rate:,.0f}/s ({rate / alone:.2f} times one), CPU of the coordinators "
            f"{sum(cpu for _, cpu in seen) / requests * 1e6:.0f} us each, p50 {percentile(latencies, 0.5) * 1e3:.1f} ms",
            flush=True,
        )


async def claims(jobs: int = 12_000) -> None:
    """Measure leases a second of one, two and three processes that each have jobs of their own."""
    with tempfile.TemporaryDirectory(prefix="comptoir-claims-") as folder, postgres() as database:
        async with bench_claims.open_post(Path(folder) / "data", database) as (core, host_id):
            args = database, core.node_id.hex(), host_id.hex()
            alone = 0.0
            for count in COUNTS:
                await bench_claims.fill(core, jobs)
                found, wall_s, _ = await asyncio.to_thread(bench_claims.claimed, count, "lease_share", *args)
                assert len(found) == jobs and set(found.values()) == {1}
                alone = alone or jobs / wall_s
                print(
                    f"claims, {count} processes: {jobs / wall_s:,.0f}/s ({jobs / wall_s / alone:.2f} times one)",
                    flush=True,
                )


# -- frames through the bus --------------------------------------------------------------------------------------


async def frames(rounds: int = 4) -> None:
    """Measure a token's way from engine to reader, at the host's coordinator and at another, in turns."""
    async with cluster(2) as (made, key, _):
        here, there = (server(one, key) for one in made.coordinators)
        async with worker(made.coordinators[0].url, made.data / "w", per_s=PER_S, stamp=True):
            await asyncio.gather(answered(here), answered(there))
            delays: dict[str, list[float]] = {"same": [], "another": []}
            for _ in range(rounds):
                for name, at in (("same", here), ("another", there)):

                    def on_data(data: bytes, into: list[float] = delays[name]) -> None:
                        now = time.monotonic_ns()
                        into.extend((now - int(stamp)) / 1e6 for stamp in STAMP.findall(data))

                    await at.run(clients=STREAMS, requests=STREAMS, tokens=STREAM_TOKENS, stream=True, on_data=on_data)
    shares = {name: [percentile(each, share) for share in (0.5, 0.99)] for name, each in delays.items()}
    for name, (p50, p99) in shares.items():
        print(f"frames read at {name} coordinator: p50 {p50:.2f} ms, p99 {p99:.2f} ms ({len(delays[name]):,} tokens)")
    (same50, same99), (other50, other99) = shares["same"], shares["another"]
    print(
        f"  added by the bus: p50 {other50 - same50:.2f} ms ({other50 / same50:.2f} times), p99 {other99 - same99:.2f} ms "
        f"({other99 / same99:.2f} times)",
        flush=True,
    )


# -- recovery ----------------------------------------------------------------------------------------------------


class Stream:
    """A chat completion that is read; notes when each frame came, and when the host had made it."""

    def __init__(self, session: aiohttp.ClientSession, url: str, model: str) -> None:
        self.came: list[tuple[int, int]] = []
        """Made, read: ``time.monotonic_ns``."""
        self._session, self._url, self._model = session, url, model
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        messages = [{"role": "user", "content": "hi"}]
        body = {"model": self._model, "stream": True, "max_tokens": 100_000, "messages": messages}
        async with self._session.post(f"{self._url}/v1/chat/completions", json=body) as response:
            assert response.status == 200, await response.text()
            async for line in response.content:
                now = time.monotonic_ns()
                self.came += [(int(stamp), now) for stamp in STAMP.findall(line)]

    async def flows(self, *, after_ns: int = 0) -> int:
        """Wait for a frame made after *after_ns*; return when it was read."""
        async with asyncio.timeout(WITHIN_S):
            while not self.came or self.came[-1][0] <= after_ns:
                assert not self.task.done(), "the stream ended"
                await asyncio.sleep(0.002)
        return next(read for made, read in self.came if made > after_ns)

    async def hang_up(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def running_streams(made: LocalCluster, key: str, number: int) -> list[float]:
    """Kill the coordinator that has the host's link; return the seconds to the next frame of each stream, read at the
    other."""
    first, second = made.coordinators
    made.balancer.offer(second.address, open=False)
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        worker(made.url, made.data / f"r{number}", per_s=PER_S, stamp=True, model=f"m{number}"),
        aiohttp.ClientSession(headers=headers) as session,
    ):
        await answered(server(second, key), f"m{number}")
        made.balancer.offer(second.address)
        streams = [Stream(session, second.url, f"m{number}") for _ in range(4)]
        for stream in streams:
            await stream.flows()
        killed_ns = time.monotonic_ns()
        first.kill()
        made.balancer.remove(first.address)
        seen = await asyncio.gather(*(stream.flows(after_ns=killed_ns) for stream in streams))
        await asyncio.gather(*(stream.hang_up() for stream in streams))
    await first.ended()
    await first.start()
    made.balancer.offer(first.address)
    return [(each - killed_ns) / 1e9 for each in seen]


async def waiting_jobs(made: LocalCluster, key: str, number: int, db: Database) -> list[float]:
    """Kill a coordinator with jobs in its line, whose host is elsewhere and gets free then; return the seconds to their
    start."""
    first, second = made.coordinators
    model = f"q{number}"
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        worker(second.url, made.data / model, per_s=PER_S, stamp=True, model=model, slots=2),
        aiohttp.ClientSession(headers=headers) as session,
    ):
        await asyncio.gather(answered(server(first, key), model), answered(server(second, key), model))
        busy = [Stream(session, second.url, model) for _ in range(2)]
        for stream in busy:
            await stream.flows()
        for _ in range(2):
            body = {"model": model, "input_text": "hi", "max_tokens": 5}
            async with session.post(f"{first.url}/run/model", json=body) as response:
                assert response.status == 202, await response.text()
        killed_ms = time.time() * 1000
        first.kill()
        made.balancer.remove(first.address)
        await asyncio.gather(*(stream.hang_up() for stream in busy))
        sql = "SELECT started_ms FROM jobs WHERE model = ? AND detached = 1"
        async with asyncio.timeout(WITHIN_S):
            rows = await db.fetch(sql, [model])
            while any(started is None for (started,) in rows):
                await asyncio.sleep(0.02)
                rows = await db.fetch(sql, [model])
    await first.ended()
    await first.start()
    made.balancer.offer(first.address)
    return [(float(str(started)) - killed_ms) / 1000 for (started,) in rows]


async def recovery() -> None:
    """Kill a coordinator again and again."""
    async with cluster(2) as (made, key, db):
        next_frames = [each for n in range(DEATHS) for each in await running_streams(made, key, n)]
        starts = [each for n in range(DEATHS) for each in await waiting_jobs(made, key, n, db)]
    p50, worst = percentile(next_frames, 0.5), max(next_frames)
    print(
        f"kill -9 of a host's coordinator to the next frame of a running stream: p50 {p50:.2f} s, worst {worst:.2f} s of "
        f"{len(next_frames)}; {p50 * PER_S:.0f} times the pause between two frames"
    )
    p50, worst = percentile(starts, 0.5), max(starts)
    print(
        f"kill -9 of a coordinator to the start of a job in its line: p50 {p50:.2f} s, worst {worst:.2f} s of {len(starts)}; "
        f"{p50 / NODE_SILENT_S:.2f} times the silence after which it is taken for dead",
        flush=True,
    )


MEASURED = {"lives": lives, "claims": claims, "frames": frames, "recovery": recovery}


def main(args: Sequence[str]) -> None:
    print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    for name in args or MEASURED:
        uvloop.run(MEASURED[name]())


if __name__ == "__main__":
    main(sys.argv[1:])
