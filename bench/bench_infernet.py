"""Infernet's API over a whole trading post, everything durable: bought, run, settled, receipt signed, result fetched.

Coordinator, worker (with containers that cost nothing, or the real engine before a real one over HTTP), and load are
processes of their own; the coordinator has one core, all others share the other. CPU is the coordinator's alone, told
apart by thread: event loop, and writer. The reference in the same run and on the same core is a node of our own making
that does what Ritual's does and nothing more (`infernet_reference`): Quart on hypercorn, jobs in a dict. It calls the
containers itself, which the worker does here; so the sum with the worker's CPU is printed too. What two requests cost a
bare Starlette application tells how fast the machine is.

Usage: ``PYTHONPATH=src:. python -m bench.bench_infernet [rounds] [jobs]``
"""

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec
import uvloop

from bench.bench_completions import COORDINATOR_CPU, LOAD_CPU, Server, child, cpu_s
from bench.bench_lives import cpu_by_thread
from bench.http_load import percentile
from bench.infernet_load import Load, Seen, job
from bench.infernet_parts import CONTAINERS, MODULE

STORED = 100_000
"""Jobs of the caller whose list is asked for."""

REAL_NODE_MS = "1.35 to 1.47"
"""CPU of a job that Ritual's node 1.4.0 was measured with on a machine like this one, nothing durable."""

SINGLE, CHAIN = job("c0"), job("c0", "c1", "c2")
BATCH = b"[" + b",".join([SINGLE] * 100) + b"]"


class Node(Load):
    """A node under load: ours, or the reference."""

    def __init__(self, name: str, pid: int, url: str, worker_pid: int = 0) -> None:
        super().__init__(urlsplit(url).port or 80)
        self.name = name
        self.pid = pid
        self.worker_pid = worker_pid

    async def cost(self, body: bytes, *, jobs: int, clients: int, keep: bool = True) -> tuple[Seen, list[float]]:
        """Live jobs; return what was seen, and the CPU ms of each: event loop, other threads, worker."""
        before = (*cpu_by_thread(self.pid), cpu_s(self.worker_pid) if self.worker_pid else 0.0)
        seen = await self.lives(body, jobs=jobs, clients=clients, keep=keep)
        after = (*cpu_by_thread(self.pid), cpu_s(self.worker_pid) if self.worker_pid else 0.0)
        return seen, [(b - a) / jobs * 1e3 for a, b in zip(before, after, strict=True)]


@contextlib.contextmanager
def trading_post(name: str, *, target: str, stored: int = 0, **options: object) -> Iterator[Node]:
    """Run coordinator and worker."""
    with (
        tempfile.TemporaryDirectory(prefix="comptoir-bench-") as folder,
        child("coordinator", folder + "/data", str(stored), cpu=COORDINATOR_CPU, module=MODULE) as (pid, (url,)),
        child(
            "worker",
            url,
            folder + "/worker",
            target,
            msgspec.json.encode(options).decode(),
            cpu=LOAD_CPU,
            said=False,
            module=MODULE,
        ) as (worker_pid, _),
    ):
        yield Node(name, pid, url, worker_pid)


async def linked(node: Node) -> None:
    """Wait until the containers are there, and warm up."""
    for _ in range(200):
        _, size = await node.latencies("/info", count=1)
        if size > CONTAINERS * 20:
            break
        await asyncio.sleep(0.05)
    await node.lives(SINGLE, jobs=500, clients=16)


def in_ms(values: list[float]) -> str:
    """Say p50 and p99."""
    return f"{percentile(values, 0.5) * 1e3:.2f} / {percentile(values, 0.99) * 1e3:.2f}"


async def lives(nodes: list[Node], bare: Server, jobs: int) -> None:
    """Print what a job costs, of each kind and at each node; the last node is the reference."""
    names = f"{'jobs/s':>7} {'CPU ms':>7} {'loop':>6} {'writer':>6} {'+worker':>8} {'POST p50 / p99 ms':>18} {'/2 bare':>14}"
    print(f"{'':34} {'node':14} {names}  ours/reference")
    kinds = (
        ("one container, 64 clients", SINGLE, jobs, 64, True),
        ("one container, 1 client", SINGLE, jobs // 8, 1, True),
        ("chain of 3, 64 clients", CHAIN, jobs // 2, 64, True),
        ("batches of 100, 4 clients", BATCH, jobs, 4, True),
        ("new connection a call, 16 clients", SINGLE, jobs // 4, 16, False),
    )
    for kind, body, count, clients, keep in kinds:
        measured = [(node, *await node.cost(body, jobs=count, clients=clients, keep=keep)) for node in nodes]
        base_ms = sum(measured[-1][2])
        _, bare_s = await bare.run(clients=clients, requests=count)
        for node, seen, (loop_ms, writer_ms, worker_ms) in measured:
            each_ms = loop_ms + writer_ms
            ratio = f"{each_ms / base_ms:.2f}, with the worker {(each_ms + worker_ms) / base_ms:.2f}"
            bare_ratio = each_ms / (2 * bare_s / count * 1e3)
            print(
                f"{kind:34} {node.name:14} {count / seen.wall_s:>7,.0f} {each_ms:>7.3f} {loop_ms:>6.3f} {writer_ms:>6.3f} "
                f"{each_ms + worker_ms:>8.3f} {in_ms(seen.post_s):>18} {bare_ratio:>14.1f}  {'' if node is nodes[-1] else ratio}",
                flush=True,
            )
    print(f"(Ritual's node 1.4.0, nothing durable, measured elsewhere: {REAL_NODE_MS} ms CPU a job)")


async def bursts(nodes: list[Node], jobs: int) -> None:
    """Print how many jobs a second are accepted, and done."""
    for node in nodes:
        seen = await node.burst(SINGLE, jobs=jobs, clients=64)
        print(
            f"{jobs:,} jobs at once, {node.name}: {jobs / seen.wall_s:,.0f} accepted/s, {jobs / seen.completed_s:,.0f} done/s, "
            f"POST p50 / p99 {in_ms(seen.post_s)} ms",
            flush=True,
        )


async def streams(nodes: list[Node], together: int = 300, rounds: int = 5) -> None:
    """Print whether the id ever came with data, and when data came."""
    for node in nodes:
        before = cpu_s(node.pid)
        seen = await node.streams(SINGLE, together=together, rounds=rounds)
        each_ms = (cpu_s(node.pid) - before) / together / rounds * 1e3
        print(
            f"{together} streams at once, {rounds} times, {node.name}: {seen.glued} with the id not alone, {seen.broken} not whole"
            f"; first data p50 / p99 {in_ms(seen.first_data_s or [0.0])} ms; CPU {each_ms:.2f} ms each",
            flush=True,
        )


async def looks(node: Node) -> None:
    """Print how fast the node says what it is."""
    await node.lives(SINGLE, jobs=10, clients=1)
    ids = msgspec.json.decode(await node.get("/api/jobs?limit=10"))
    paths = [("/info", "/info"), ("/resources", "/resources"), ("/api/jobs?id=", f"/api/jobs?id={ids[-1]}")]
    paths.append(("/api/jobs?id= x 10", "/api/jobs?" + "&".join(f"id={one}" for one in ids)))
    for name, path in paths:
        took, size = await node.latencies(path, count=1000)
        print(f"GET {name}, {CONTAINERS} containers: p50 / p99 {in_ms(took)} ms, {size:,} bytes", flush=True)


async def lists(node: Node, count: int = 30) -> None:
    """Print what it takes to list the jobs of a caller who has many, and how long others wait meanwhile."""
    probe, _ = await node.latencies("/info", count=500)
    print(f"list of {STORED:,} stored jobs; GET /info meanwhile (p50 / p99 ms), alone: {in_ms(probe)}")
    for query in ("", "?pending=true", "?pending=false", "?limit=100"):
        listing = asyncio.create_task(node.latencies("/api/jobs" + query, count=count))
        probe = []
        while not listing.done():
            took, _ = await node.latencies("/info", count=10)
            probe += took
        times, size = await listing
        print(
            f"GET /api/jobs{query}: p50 / p99 {in_ms(times)} ms, {size:,} bytes; /info meanwhile {in_ms(probe)} ms",
            flush=True,
        )


async def one_round(jobs: int) -> None:
    """Measure everything once."""
    with (
        child("container", cpu=LOAD_CPU, module=MODULE) as (_, (container,)),
        child("reference", container, str(CONTAINERS), cpu=COORDINATOR_CPU, module=MODULE) as (pid, (url,)),
        child("reference", cpu=COORDINATOR_CPU) as (bare_pid, (bare_url, bare_key)),
        trading_post("ours, free", target="bench.free_containers:FreeContainers", count=CONTAINERS) as free,
        trading_post("ours, real", target="bench.infernet_parts:real_containers", url=container) as real,
    ):
        nodes = [free, real, Node("reference", pid, url)]
        for node in nodes:
            await linked(node)
        await lives(nodes, Server(bare_pid, bare_url, bare_key), jobs)
        await bursts(nodes, jobs)
        await streams(nodes)
        await looks(free)
    with trading_post("ours", target="bench.free_containers:FreeContainers", stored=STORED, count=CONTAINERS) as node:
        await linked(node)
        await lists(node)


def main(args: list[str]) -> None:
    os.sched_setaffinity(0, {LOAD_CPU})
    for turn in range(int(args[0]) if args else 1):
        print(f"-- round {turn + 1}", flush=True)
        uvloop.run(one_round(int(args[1]) if len(args) > 1 else 4000))


if __name__ == "__main__":
    main(sys.argv[1:])
