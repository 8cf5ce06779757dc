"""Four processes claim the same jobs from one PostgreSQL, through the verbs that coordinators claim with: how fast, and
how many are handed out twice (none may be).

Leases: every process asks for every job, all in the same order, so that each is wanted by four at about the same
    moment. Take-over: four coordinators take the jobs of a dead one, in batches. Beside them, in the same run: one
    process alone, which nobody contends with; and a claim as one would write it at first (select what is free, then
    update it), which shows that doubles would be seen.

Usage: ``PYTHONPATH=src:. python -m bench.bench_claims [jobs]``; the default of 100,000 takes about two minutes.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvloop

from bench.bench_lives import postgres
from comptoir.app import open_core
from comptoir.dispatch import Core
from comptoir.dispatch.assign import start_verb
from comptoir.dispatch.onboard import add_host, add_user
from comptoir.dispatch.submit import Order, submit
from comptoir.hosts import LINK, NewHost
from comptoir.jobs import JobFinished, JobMoved, Jobs, Start
from comptoir.kit.db import Database, Tx, open_database
from comptoir.kit.ids import new_id
from comptoir.link import ModelOffer
from comptoir.reports import audit
from comptoir.settings import Settings

PROCESSES = 4
SHARE_ALONE = 5
"""The process that has nobody beside it claims one in so many jobs."""

TOGETHER = 256
"""Jobs that one process asks for side by side, as a coordinator under load does."""

MODEL = "bench-model"


# -- the claimers ------------------------------------------------------------------------------------------------


async def lease(db: Database, node_id: bytes, owner: bytes, host: bytes, *, shared: bool = False) -> list[str]:
    """Ask for every job that waits, oldest first; return those won."""
    ids = [bytes(row[0]) for row in await db.fetch("SELECT id FROM jobs WHERE state = 'queued' ORDER BY id")]
    won: list[str] = []

    async def one(job_id: bytes) -> None:
        item = Start(job_id, new_id(), host, 0, int(time.time() * 1000), 1, node_id, owner, 1, 1)
        with contextlib.suppress(JobFinished, JobMoved):
            await db.batch(start_verb, item)
            won.append(job_id.hex())

    print("ready", flush=True)
    share, of = (await asyncio.to_thread(sys.stdin.readline)).split()
    ids = ids[int(share) :: int(of)] if shared else ids
    for first in range(0, len(ids), TOGETHER):
        await asyncio.gather(*map(one, ids[first : first + TOGETHER]))
    return won


async def lease_share(db: Database, node_id: bytes, owner: bytes, host: bytes) -> list[str]:
    """Ask for the jobs that nobody else asks for."""
    return await lease(db, node_id, owner, host, shared=True)


async def take_over(db: Database, node_id: bytes, owner: bytes, _: bytes) -> list[str]:
    """Take the jobs of a coordinator that is gone, until there are none; return them."""
    jobs, won = Jobs(db), list[str]()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    while rows := await jobs.claim_orphans(node_id=node_id, of=[owner]):
        won += [row.id.hex() for row in rows]
    return won


async def naive(db: Database, *_: bytes) -> list[str]:
    """Select what is free, then update it."""

    def claim(tx: Tx) -> list[str]:
        rows = tx.fetch("SELECT id FROM bench_naive WHERE free = 1 ORDER BY id LIMIT 50")
        for (number,) in rows:
            tx.execute("UPDATE bench_naive SET free = 0 WHERE id = ?", (number,))
        return [str(number) for (number,) in rows]

    won: list[str] = []
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    while numbers := await db.run(claim):
        won += numbers
    return won


CLAIMS = {"lease": lease, "lease_share": lease_share, "take_over": take_over, "naive": naive}


async def claimer(how: str, database: str, owner: str, host: str) -> None:
    """Open a coordinator's connections, claim when told to, say what was won."""
    db = open_database(database)
    won = await CLAIMS[how](db, new_id(), bytes.fromhex(owner), bytes.fromhex(host))
    await db.close()
    print(json.dumps(won), flush=True)


# -- the referee -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def claimers(count: int, how: str, *args: str) -> Iterator[list["subprocess.Popen[str]"]]:
    """Run *count* claimers, each ready to begin."""
    command = [sys.executable, "-m", "bench.bench_claims", how, *args]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def claimed(count: int, how: str, *args: str) -> tuple[Counter[str], float, list[int]]:
    """Let *count* processes claim; return how often each job was handed out, the wall seconds, and each one's share."""
    with claimers(count, how, *args) as processes:
        began = time.perf_counter()
        for number, process in enumerate(processes):
            assert process.stdin is not None
            process.stdin.write(f"{number} {count}\n")
            process.stdin.flush()
        won = []
        for process in processes:
            assert process.stdout is not None
            won.append(json.loads(process.stdout.readline()))
        wall_s = time.perf_counter() - began
    return Counter(job for each in won for job in each), wall_s, [len(each) for each in won]


async def fill(core: Core, jobs: int) -> None:
    """Have *jobs* jobs wait, bought as any are."""
    buyer = (await add_user(core, username=f"b{new_id().hex()[:12]}", email=None, password=None)).user.id
    await core.ledger.deposit(owner_id=buyer, amount_uusd=10**14)
    order = Order(buyer, "bench", "chat", MODEL, b'{"messages":[]}', 1, True)
    for first in range(0, jobs, 500):
        await asyncio.gather(*(submit(core, order) for _ in range(min(500, jobs - first))))


@contextlib.asynccontextmanager
async def open_post(folder: Path, database: str):  # type: ignore[no-untyped-def]
    """Open a coordinator that has one host, which is away."""
    settings = Settings(data=str(folder), database=database, jobs_per_buyer_max=10_000_000)
    async with open_core(settings) as core:
        offer = ModelOffer(MODEL, ["chat"], 4096, 1_000_000, 1_000_000)
        host = await add_host(core, NewHost(gpu="x", models=(offer,), slots=1, transport=LINK))
        yield core, host.host_id


async def verdict(core: Core, name: str, jobs: int, found: tuple[Counter[str], float, list[int]]) -> float:
    """Print what four processes did; end the run if anything was handed out twice, or not at all."""
    times, wall_s, shares = found
    twice = sum(count > 1 for count in times.values())
    print(
        f"{name}: {twice} of {jobs:,} jobs handed out twice by {PROCESSES} processes; {jobs / wall_s:,.0f} claims/s "
        f"({', '.join(f'{share:,}' for share in shares)} each)"
    )
    if twice or len(times) != jobs:
        raise SystemExit(f"{twice} twice, {jobs - len(times)} not at all")
    differences = await audit(core.db)
    if differences:
        raise SystemExit(f"the audit found {differences[:3]}")
    return jobs / wall_s


async def measure(folder: Path, database: str, jobs: int) -> None:
    """Run everything once."""
    async with open_post(folder, database) as (core, host_id):
        args = database, core.node_id.hex(), host_id.hex()
        few = jobs // SHARE_ALONE
        await fill(core, few)
        _, wall_s, _ = await asyncio.to_thread(claimed, 1, "lease", *args)
        alone = few / wall_s
        await fill(core, jobs)
        rate = await verdict(core, "leases", jobs, await asyncio.to_thread(claimed, PROCESSES, "lease", *args))
        print(
            f"  one process alone: {alone:,.0f} claims/s, so {rate / alone:.2f} times that with everybody at every job"
        )
        await fill(core, jobs)
        rate = await verdict(core, "take-over", jobs, await asyncio.to_thread(claimed, PROCESSES, "take_over", *args))
        print(f"  {rate / alone:.2f} times as many as leases by one process alone")
        await core.db.run(lambda tx: tx.execute("CREATE TABLE bench_naive (id BIGINT PRIMARY KEY, free INT)"))
        await core.db.run(
            lambda tx: tx.execute(f"INSERT INTO bench_naive SELECT n, 1 FROM generate_series(1, {few:d}) n")
        )
        times, wall_s, _ = await asyncio.to_thread(claimed, PROCESSES, "naive", *args)
        twice = sum(count > 1 for count in times.values())
        print(f"select, then update: {twice:,} of {few:,} handed out twice or more; {few / wall_s:,.0f} a second")


def main(args: Sequence[str]) -> None:
    if args and args[0] in CLAIMS:
        uvloop.run(claimer(*args))
        return
    jobs = int(args[0]) if args else 100_000
    print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="comptoir-claims-") as folder, postgres() as database:
        uvloop.run(measure(Path(folder) / "data", database, jobs))


if __name__ == "__main__":
    main(sys.argv[1:])
