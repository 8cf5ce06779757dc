"""A trading post of real programs, `comptoir up` and `comptoir host`, each of which can be replaced by that of other
code."""

import asyncio
import contextlib
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from comptoir.cli.cluster.balancer import Balancer
from comptoir.cli.cluster.postgres import LocalPostgres
from comptoir.cli.cluster.redis import LocalRedis
from comptoir.cli.quickstart import read_quickstart
from tests.chaos.pollers import Poller
from tests.chaos.processes import READY_S_MAX, Code, Program
from tests.chaos.tables import count_states
from tests.post import free_port

ENGINES = ("tests.chaos.engine:NumberedEngine", "tests.chaos.chains:AppendingEngine")
BUYERS = 6
CREDIT_UUSD = 5_000_000_000
WORKERS = 3
SLOTS = 3
"""Few, so that jobs wait whenever something is replaced."""

SETTINGS = {
    "drain_s": 2, "job_ttl_s": 60, "lease_s": 5, "pulse_s": 2, "sse_ping_s": 2, "next_job_wait_s": 2, "retention_days": 0,
    "requests_per_minute_per_ip": 10_000_000, "requests_per_minute_per_key": 10_000_000, "argon2_passes": 1,
    "infernet_requests_per_minute": 10_000_000, "argon2_memory_kib": 8, "signup_credits_uusd": CREDIT_UUSD,
}  # fmt: skip
"""Those of every coordinator, as published; known to every version that is upgraded from."""


@dataclass(frozen=True)
class Replaced:
    """One program that was replaced."""

    name: str
    deed: str
    """``term`` or ``kill``."""
    at_s: float
    """Since the buyers began."""
    down_s: float
    """From the signal until the new one is ready."""
    queued: int
    """Jobs that waited at the signal."""
    running: int


@dataclass
class Stage:
    """Everything that runs."""

    folder: Path
    old: Code
    new: Code
    postgres: LocalPostgres | None = None
    redis: LocalRedis | None = None
    balancer: Balancer | None = None
    coordinators: list[Program] = field(default_factory=list)
    workers: list[Program] = field(default_factory=list)
    pollers: list[Poller] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    accounts: dict[str, int] = field(default_factory=dict)
    admin_key: str = ""
    began_s: float = 0.0
    replaced: list[Replaced] = field(default_factory=list)

    @property
    def database(self) -> str:
        """Its address, or the path of its file."""
        return self.postgres.url if self.postgres is not None else str(self.folder / "data" / "comptoir.db")

    def choose(self, dice: random.Random) -> str:
        """Return an address to ask: some coordinator's, or the balancer's."""
        return dice.choice([*self.urls, *([self.balancer.url] if self.balancer is not None else [])])

    async def replace(self, program: Program, deed: str) -> None:
        """End *program* with SIGTERM (``term``) or SIGKILL, and start the new code in its place."""
        open_jobs: Counter[str] = Counter()
        for state, count in (await asyncio.to_thread(count_states, self.database)).items():
            open_jobs[state.split()[0]] += count
        before_s = time.monotonic()
        if deed == "term":
            await program.stop()
        else:
            program.kill()
            await program.ended()
        program.code = self.new
        await program.start()
        now_s = time.monotonic()
        facts = (before_s - self.began_s, now_s - before_s, open_jobs["queued"], open_jobs["running"])
        self.replaced.append(Replaced(program.name, deed, *facts))


@contextlib.asynccontextmanager
async def set_up(folder: Path, *, old: Code, new: Code, several: bool, seed: int) -> AsyncIterator[Stage]:
    """Start a trading post of *old* code: one coordinator on SQLite, or three on PostgreSQL with Redis and a
    balancer."""
    stage = Stage(folder, old, new)
    try:
        if several:
            stage.postgres = LocalPostgres(folder / "postgres", log=folder / "postgres.log", fsync=False)
            await stage.postgres.start()
            stage.redis = LocalRedis(folder / "redis", log=folder / "redis.log")
            await stage.redis.start()
        for number in range(3 if several else 1):
            stage.coordinators.append(_coordinator(stage, number))
        for coordinator in stage.coordinators:
            await coordinator.start()
        if several:
            places = [("127.0.0.1", int(url.rpartition(":")[2])) for url in stage.urls]
            stage.balancer = Balancer(socket.create_server(("127.0.0.1", 0)), places)
            await stage.balancer.start()
        await _people(stage)
        for number in range(WORKERS):
            stage.workers.append(_worker(stage, number))
            await stage.workers[-1].start()
        stage.pollers.append(Poller("poller0", stage.choose, seed=seed))
        await stage.pollers[0].start()
        async with asyncio.timeout(READY_S_MAX):
            await _all_seen(stage)
        yield stage
    finally:
        await _stop(stage)


def _coordinator(stage: Stage, number: int) -> Program:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    stage.urls.append(url)
    given = {**SETTINGS, "port": port, "data": stage.folder / "data"}
    if stage.postgres is not None and stage.redis is not None:
        given |= {"database": stage.postgres.url, "bus": stage.redis.url}
    pairs = [f"--set={name}={value}" for name, value in given.items()]

    async def ready() -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{url}/house/status") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    arguments = ("up", "--no-worker", "--log-level", "info", *pairs)
    return _program(stage, f"coordinator{number}", arguments, ready)


def _worker(stage: Stage, number: int) -> Program:
    name, first = f"worker{number}", number % len(stage.urls)
    urls = [f"--url={url}" for url in stage.urls[first:] + stage.urls[:first]]
    engines = [f"--engine={engine}" for engine in ENGINES]
    # At the price of the host that polls, so that the hold of any job covers any of them.
    prices = ("--price-in", "0", "--price-out", "90", "--price-run", "0.0001")
    arguments = (
        "host", *urls, *engines, *prices, "--slots", str(SLOTS), "--state", str(stage.folder / name), "--no-measure",
        "--drain", "2", "--name", name,
    )  # fmt: skip

    async def ready() -> bool:
        return True  # It links when it can; nobody waits for it.

    return _program(stage, name, arguments, ready)


def _program(stage: Stage, name: str, arguments: tuple[str, ...], ready) -> Program:  # type: ignore[no-untyped-def]
    program = Program(name, "comptoir", arguments, folder=stage.folder, ready=ready)
    program.code = stage.old
    return program


async def _all_seen(stage: Stage) -> None:
    """Wait until each coordinator knows of all others, and of all hosts."""
    wanted = f'comptoir_hosts{{status="active"}} {len(stage.workers) + len(stage.pollers)}.0'
    others = f"comptoir_coordinators {len(stage.coordinators)}.0"
    async with aiohttp.ClientSession(headers={"accept": "text/plain"}) as session:
        for url in stage.urls:
            said = ""
            while wanted not in said or (len(stage.coordinators) > 1 and others not in said):
                await asyncio.sleep(0.1)
                async with session.get(f"{url}/metrics") as answer:
                    said = await answer.text()


async def _people(stage: Stage) -> None:
    """Sign the buyers up as anybody does; the operator is there since the first start."""
    async with aiohttp.ClientSession() as session:
        for number in range(BUYERS):
            name = f"buyer{number}"
            body = {"username": name, "email": f"{name}@example.org", "password": "correct-horse"}
            async with session.post(f"{stage.urls[0]}/users", json=body) as answer:
                assert answer.status == 201, await answer.text()
                made = await answer.json()
            stage.names.append(name)
            stage.keys.append(made["api_key"])
            stage.accounts[made["user_id"].removeprefix("usr_")] = number
    found = read_quickstart(stage.folder / "data")
    assert found is not None
    stage.admin_key = found.admin_key


async def _stop(stage: Stage) -> None:
    for poller in stage.pollers:
        await poller.stop()
    if stage.balancer is not None:
        await stage.balancer.stop()
    for program in (*stage.workers, *stage.coordinators):
        if program.pid:
            program.kill()
            await program.ended()
    for server in (stage.redis, stage.postgres):
        if server is not None:
            await server.stop()
