"""The stage of an episode: every process and proxy of a topology, on free ports over one folder, and how to reach them."""

import contextlib
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec

from comptoir.app import open_house
from comptoir.dispatch.onboard import add_user
from comptoir.identity import Role
from comptoir.settings import Settings
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.offering import Price
from comptoir.worker.run import WorkerConfig
from tests.chaos.coordinator import write_clock
from tests.chaos.plan import BUYERS, CREDIT_UUSD, POOR_CREDIT_UUSD, SLOTS, WORKERS, Plan
from tests.chaos.pollers import Poller
from tests.chaos.postgres import Postgres, make_postgres
from tests.chaos.processes import Process, python
from tests.chaos.proxy import LinkProxy, serve_proxy
from tests.post import free_port

ENGINE = "tests.chaos.engine:NumberedEngine"

JOB_TTL_S = 60.0
LEASE_S = 5.0
"""Short, so that what nobody finishes ends within the episode."""


@dataclass
class Coordinator:
    """One coordinator process, its clock, and the proxy that links to it go through."""

    process: Process
    settings: Settings
    clock: Path
    proxy: LinkProxy

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"


@dataclass
class Stage:
    """Everything that runs."""

    folder: Path
    plan: Plan
    database: str
    coordinators: list[Coordinator] = field(default_factory=list)
    workers: list[Process] = field(default_factory=list)
    pollers: list[Poller] = field(default_factory=list)
    postgres: Postgres | None = None
    keys: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    accounts: dict[str, int] = field(default_factory=dict)
    """Of each buyer's account (hex), its number in the plan."""
    admin_key: str = ""

    @property
    def processes(self) -> list[Process]:
        """All of them, in the order in which they have to start."""
        servers: list[Process] = [self.postgres] if self.postgres is not None else []
        return [*servers, *(one.process for one in self.coordinators), *self.workers]

    def choose(self, dice: random.Random) -> str:
        """Return the address of some coordinator."""
        return dice.choice(self.coordinators).url


def _settings(plan: Plan, folder: Path, database: str) -> Settings:
    return Settings(
        data=str(folder / "data"), database=database, port=free_port(), drain_s=3.0, job_ttl_s=JOB_TTL_S, lease_s=LEASE_S,
        pulse_s=2.0, sse_ping_s=2.0, next_job_wait_s=2.0, requests_per_minute_per_ip=10_000_000,
        requests_per_minute_per_key=10_000_000, argon2_memory_kib=8, argon2_passes=1, retention_days=0,
        idempotency_ttl_s=30 * 86_400.0,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def set_up(plan: Plan, folder: Path) -> AsyncIterator[Stage]:
    """Make and start everything that *plan* needs in *folder*; stop it all at the end, whatever happened."""
    async with contextlib.AsyncExitStack() as stack:
        stage = Stage(folder, plan, "")
        if plan.topology != "sqlite":
            port = free_port()
            stage.postgres = make_postgres(folder / "postgres", port)
            stage.database = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        stack.push_async_callback(_stop, stage)
        if stage.postgres is not None:
            await stage.postgres.start()
        for number in range(plan.coordinators):
            await _add_coordinator(stage, stack, number)
        await _people(stage)
        for coordinator in stage.coordinators:
            await coordinator.process.start()
        for number in range(WORKERS):
            await _add_worker(stage, number)
        stage.pollers.append(Poller("poller0", stage.choose, seed=plan.seed))
        for poller in stage.pollers:
            await poller.start()
        yield stage


async def _add_coordinator(stage: Stage, stack: contextlib.AsyncExitStack, number: int) -> None:
    settings = _settings(stage.plan, stage.folder, stage.database)
    given, clock = stage.folder / f"coordinator{number}.json", stage.folder / f"coordinator{number}.clock"
    given.write_bytes(msgspec.json.encode(settings))
    write_clock(clock, 0)
    url = f"http://127.0.0.1:{settings.port}"

    async def ready() -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{url}/house/status") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    name = f"coordinator{number}"
    process = Process(
        name, python("tests.chaos.coordinator", str(given), str(clock)), log=stage.folder / f"{name}.log", ready=ready
    )
    port = settings.port
    proxy = await stack.enter_async_context(serve_proxy(lambda: ("127.0.0.1", port)))
    stage.coordinators.append(Coordinator(process, settings, clock, proxy))


async def _people(stage: Stage) -> None:
    """Make buyers and operator before anybody serves."""
    async with open_house(stage.coordinators[0].settings) as house:
        for number in range(BUYERS):
            credit = POOR_CREDIT_UUSD if number == BUYERS - 1 else CREDIT_UUSD
            made = await add_user(house, username=f"buyer{number}", email=None, password=None, credit_uusd=credit)
            stage.keys.append(made.key)
            stage.accounts[made.user.id.hex()] = number
            stage.names.append(f"buyer{number}")
        stage.admin_key = (await add_user(house, username="root", email=None, password=None, role=Role.ADMIN)).key


async def _add_worker(stage: Stage, number: int) -> None:
    name = f"worker{number}"
    # Each at a price of its own; the link goes through a proxy of some coordinator.
    price = Price(in_uusd_per_mtok=1_000_000, out_uusd_per_mtok=80_000_000 + 10_000_000 * number)
    config = WorkerConfig(
        url=stage.coordinators[number % len(stage.coordinators)].proxy.url, engines=[EngineSpec(ENGINE)], slots=SLOTS, price=price,
        measure=False, state_dir=str(stage.folder / name), drain_s=2.0, name=name,
    )  # fmt: skip
    given = stage.folder / f"{name}.json"
    given.write_bytes(msgspec.json.encode(config))

    async def ready() -> bool:
        # The link may be disturbed at that moment; that the process lives is all there is to wait for.
        return True

    process = Process(name, python("tests.chaos.worker", str(given)), log=stage.folder / f"{name}.log", ready=ready)
    stage.workers.append(process)
    await process.start()


async def _stop(stage: Stage) -> None:
    for poller in stage.pollers:
        await poller.stop()
    for process in reversed(stage.processes):
        if process.pid:
            process.resume()
            if process is stage.postgres:
                process.signal(signal.SIGINT)
                await process.gone()
            else:
                await process.kill()
