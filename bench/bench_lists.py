"""Chat beside a client that lists without pause, of a buyer with 300,000 jobs; the same with nobody who lists.

The same buyer chats and lists. Chat runs in windows, in turns without and with each kind of list: the newest 20 jobs,
20 behind an offset of 250,000, and a walk through all of them by key. Printed are the medians of the windows, how many
pages were read, and ratios: chat should keep 80 % of its rate, and its p99 stay within twice of what it was. The
coordinator has one core, load and worker share the other.

Usage: ``PYTHONPATH=src:. python -m bench.bench_lists [rounds] [postgres]``
"""

import asyncio
import contextlib
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import uvloop

from bench.bench_completions import COORDINATOR_CPU, LOAD_CPU, Server, child, linked
from bench.bench_lives import Connection, postgres
from bench.http_load import percentile
from comptoir.app import open_core, running, tune_interpreter
from comptoir.dispatch.onboard import add_user
from comptoir.jobs.tables import JOBS
from comptoir.kit.db import Database
from comptoir.settings import Settings

STORED = 300_000
"""Jobs of the buyer, all over."""

DEEP = 250_000
"""Offset of the deep page."""

CLIENTS, REQUESTS = 16, 600
"""Of one window of chat."""

KINDS = ("nobody", "newest", "deep", "walk")


async def store_jobs(db: Database, owner_id: bytes, jobs: int) -> None:
    """Store *jobs* finished jobs of an owner, older than any other: nine in ten completed, the rest failed."""
    at = {name: place for place, name in enumerate(JOBS.names)}
    row: list[Any] = [0 if kind == "int" else None for kind in JOBS.columns.values()]
    for name, value in (("owner_id", owner_id), ("dialect", "openai"), ("kind", "chat"), ("model", "trivial")):
        row[at[name]] = value
    row[at["body"]] = b'{"model":"trivial","messages":[{"role":"user","content":"hi"}]}'
    row[at["finished_ms"]] = row[at["created_ms"]] = 1_700_000_000_000
    rows: list[tuple[Any, ...]] = []
    for number in range(1, jobs + 1):
        row[at["id"]] = number.to_bytes(16, "big")
        row[at["state"]] = "completed" if number % 10 else "failed"
        rows.append(tuple(row))
        if len(rows) == 5_000 or number == jobs:
            await db.run(lambda tx, rows=rows: tx.insert(JOBS, rows))
            rows = []


async def coordinator(folder: str, database: str = "") -> None:
    """Store the jobs, then serve until killed; the first line says port and key."""
    settings = Settings(data=folder, database=database, port=0, requests_per_minute_per_key=100_000_000)
    async with open_core(settings) as core:
        buyer = await add_user(core, username="bench", email="b@example.org", password="correct-horse")
        await core.ledger.deposit(owner_id=buyer.user.id, amount_uusd=10**14)
        await store_jobs(core.db, buyer.user.id, STORED)
        if core.db.dialect == "postgresql":
            await core.db.run(lambda tx: tx.execute("ANALYZE jobs"))
        tune_interpreter()
        async with running(core) as url:
            print(url, buyer.key, flush=True)
            await asyncio.Event().wait()


class Lister:
    """A client that reads one page after the other."""

    def __init__(self, port: int, key: str, kind: str) -> None:
        self._port, self._key, self._kind = port, key, kind
        self.pages = 0
        """Pages read."""
        self._before = ""
        self._over = False

    def _path(self) -> str:
        if self._kind == "walk":
            return f"/jobs?limit=20{self._before}"
        return f"/jobs?limit=20&offset={DEEP if self._kind == 'deep' else 0}"

    async def _read(self) -> None:
        connection = await Connection.open(self._port)
        try:
            while not self._over:
                status, body = await connection.ask("GET", self._path(), self._key)
                page = msgspec.json.decode(body)
                assert status == 200 and len(page["jobs"]) == 20 and page["total"] > STORED, (status, body)
                self._before = f"&before={page['next']}" if "next" in page else ""
                self.pages += 1
        finally:
            connection.close()

    @contextlib.asynccontextmanager
    async def listing(self) -> AsyncIterator[None]:
        """List until the block ends, unless it is nobody who does."""
        if self._kind == "nobody":
            yield
            return
        task = asyncio.create_task(self._read())
        yield
        self._over = True
        await task


async def measure(server: Server, rounds: int) -> dict[str, tuple[float, float, float]]:
    """Return for each kind the median rate, p99 in milliseconds, and pages a second."""
    seen: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in KINDS}
    for number, place in itertools.product(range(rounds), range(len(KINDS))):
        kind = KINDS[(number + place) % len(KINDS)]
        lister = Lister(server.port, server.key, kind)
        async with lister.listing():
            result, _ = await server.run(clients=CLIENTS, requests=REQUESTS)
        if number or rounds == 1:  # The first round warms up: the first list counts.
            p99 = percentile(result.latencies_s, 0.99) * 1e3
            seen[kind].append((REQUESTS / result.wall_s, p99, lister.pages / result.wall_s))
    medians = {}
    for kind, windows in seen.items():
        rate, p99, pages = (statistics.median(figures) for figures in zip(*windows, strict=True))
        medians[kind] = rate, p99, pages
    return medians


async def compare(rounds: int, name: str) -> dict[str, tuple[float, float, float]]:
    """Start coordinator and worker on the database of this *name*, and measure; see `measure`."""
    with (
        tempfile.TemporaryDirectory(prefix="comptoir-bench-") as folder,
        postgres() if name == "postgres" else contextlib.nullcontext("") as database,
        child("coordinator", f"{folder}/data", database, cpu=COORDINATOR_CPU, module="bench.bench_lists") as (
            pid,
            said,
        ),
        child("worker", said[0], f"{folder}/worker", "{}", cpu=LOAD_CPU, said=False),
    ):
        server = Server(pid, said[0], said[1])
        await linked(server)
        await server.run(clients=CLIENTS, requests=500)
        return await measure(server, rounds)


async def report(rounds: int, name: str) -> None:
    """Measure, and print what came out."""
    medians = await compare(rounds, name)
    rate, p99, _ = medians["nobody"]
    print(f"{'who lists':>9} {'chat/s':>7} {'p99 ms':>7} {'pages/s':>8} {'of the rate':>12} {'of p99':>7}   ({name})")
    for kind, (own_rate, own_p99, pages) in medians.items():
        print(
            f"{kind:>9} {own_rate:>7,.0f} {own_p99:>7.1f} {pages:>8,.0f} {own_rate / rate:>12.2f} {own_p99 / p99:>7.2f}",
            flush=True,
        )


def main(args: list[str]) -> None:
    if args and args[0] == "coordinator":
        uvloop.run(coordinator(*args[1:]))
        return
    os.sched_setaffinity(0, {LOAD_CPU})
    rounds = int(args[0]) if args else 9
    for name in args[1:] or ("SQLite", "postgres"):
        uvloop.run(report(rounds, name))


if __name__ == "__main__":
    main(sys.argv[1:])
