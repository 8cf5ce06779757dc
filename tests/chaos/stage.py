"""The stage of an episode: every process and proxy of a topology, on free ports over one folder, and how to reach
them."""

import contextlib
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec

from comptoir.app import open_core
from comptoir.cli.cluster.balancer import Balancer
from comptoir.cli.cluster.child import ClusterProcess
from comptoir.cli.cluster.postgres import LocalPostgres
from comptoir.cli.cluster.redis import LocalRedis
from comptoir.dispatch.onboard import add_user
from comptoir.identity import Role
from comptoir.kinds import MILLION
from comptoir.settings import Settings
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig
from tests.chaos.coordinator import write_clock
from tests.chaos.hostile import DEEDS, HostileHost
from tests.chaos.plan import BUYERS, CREDIT_UUSD, POOR_CREDIT_UUSD, SLOTS, WORKERS, Plan
from tests.chaos.pollers import Poller
from tests.chaos.processes import Program
from tests.chaos.proxy import LinkProxy, serve_proxy
from tests.post import free_port

ENGINES = ("tests.chaos.engine:NumberedEngine", "tests.chaos.chains:AppendingEngine")

JOB_TTL_S = 60.0
LEASE_S = 5.0
"""Short, so that what nobody finishes ends within the episode."""


@dataclass
class Coordinator:
    """One coordinator process, its clock, and the proxy that links to it go through."""

    process: Program
    settings: Settings
    clock: Path
    proxy: LinkProxy

    @property
    def port(self) -> int:
        return self.settings.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Stage:
    """Everything that runs."""

    folder: Path
    plan: Plan
    database: str
    coordinators: list[Coordinator] = field(default_factory=list)
    workers: list[Program] = field(default_factory=list)
    pollers: list[Poller] = field(default_factory=list)
    hostile: list[HostileHost] = field(default_factory=list)
    postgres: LocalPostgres | None = None
    redis: LocalRedis | None = None
    balancer: Balancer | None = None
    keys: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    accounts: dict[str, int] = field(default_factory=dict)
    """Of each buyer's account (hex), its number in the plan."""
    admin_key: str = ""

    @property
    def parts(self) -> list[ClusterProcess]:
        """All processes, in the order in which they have to start."""
        servers = [part for part in (self.postgres, self.redis) if part is not None]
        return [*servers, *(one.process for one in self.coordinators), *self.workers]

    @property
    def bus(self) -> str:
        """Address of the bus; empty for a coordinator alone."""
        return self.redis.url if self.redis is not None else ""

    def choose(self, dice: random.Random) -> str:
        """Return an address to ask: the balancer's, or some coordinator's own."""
        urls = [one.url for one in self.coordinators]
        if self.balancer is not None:
            urls.append(self.balancer.url)
        return dice.choice(urls)


def _settings(stage: Stage) -> Settings:
    return Settings(
        data=str(stage.folder / "data"), database=stage.database, bus=stage.bus, port=free_port(), drain_s=3.0,
        job_ttl_s=JOB_TTL_S, lease_s=LEASE_S, pulse_s=2.0, sse_ping_s=2.0, next_job_wait_s=2.0,
        requests_per_minute_per_ip=10_000_000, requests_per_minute_per_key=10_000_000,
        infernet_requests_per_minute=10_000_000, argon2_memory_kib=8, argon2_passes=1,
        retention_days=0, idempotency_ttl_s=30 * 86_400.0,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def set_up(plan: Plan, folder: Path) -> AsyncIterator[Stage]:
    """Make and start everything that *plan* needs in *folder*; stop it all at the end, whatever happened."""
    async with contextlib.AsyncExitStack() as stack:
        stage = Stage(folder, plan, "")
        stack.push_async_callback(_stop, stage)
        if plan.topology != "sqlite":
            stage.postgres = LocalPostgres(folder / "postgres", log=folder / "postgres.log", fsync=False)
            await stage.postgres.start()
            stage.database = stage.postgres.url
        if plan.topology == "cluster":
            stage.redis = LocalRedis(folder / "redis", log=folder / "redis.log")
            await stage.redis.start()
        for number in range(plan.coordinators):
            await _add_coordinator(stage, stack, number)
        await _people(stage)
        for coordinator in stage.coordinators:
            await coordinator.process.start()
        if plan.topology == "cluster":
            backends = [("127.0.0.1", one.port) for one in stage.coordinators]
            stage.balancer = Balancer(socket.create_server(("127.0.0.1", 0)), backends)
            await stage.balancer.start()
        for number in range(WORKERS - plan.hostile):
            await _add_worker(stage, number)
        stage.pollers.append(Poller("poller0", stage.choose, seed=plan.seed))
        if plan.hostile:
            stage.hostile += [HostileHost(deed, stage.choose, seed=plan.seed) for deed in DEEDS]
        for host in (*stage.pollers, *stage.hostile):
            await host.start()
        yield stage


async def _add_coordinator(stage: Stage, stack: contextlib.AsyncExitStack, number: int) -> None:
    settings = _settings(stage)
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

    arguments = (str(given), str(clock))
    process = Program(
        f"coordinator{number}", "tests.chaos.coordinator", arguments, folder=stage.folder, ready=ready, supervised=True
    )
    port = settings.port
    proxy = await stack.enter_async_context(serve_proxy(lambda: ("127.0.0.1", port)))
    stage.coordinators.append(Coordinator(process, settings, clock, proxy))


async def _people(stage: Stage) -> None:
    """Make buyers and operator before anybody serves."""
    async with open_core(stage.coordinators[0].settings) as core:
        for number in range(BUYERS):
            credit = POOR_CREDIT_UUSD if number == BUYERS - 1 else CREDIT_UUSD
            made = await add_user(core, username=f"buyer{number}", email=None, password=None, credit_uusd=credit)
            stage.keys.append(made.key)
            stage.accounts[made.user.id.hex()] = number
            stage.names.append(f"buyer{number}")
        stage.admin_key = (await add_user(core, username="root", email=None, password=None, role=Role.ADMIN)).key


async def _add_worker(stage: Stage, number: int) -> None:
    name = f"worker{number}"
    # Each at a price of its own; the link goes through a proxy of some coordinator.
    prices = {"token_in": 1_000_000, "token_out": 80_000_000 + 10_000_000 * number, "run": (100 + number) * MILLION}
    proxies = [one.proxy.url for one in stage.coordinators]
    # Each prefers another coordinator, and has the rest to fall back on.
    first = number % len(proxies)
    config = WorkerConfig(
        url=",".join(proxies[first:] + proxies[:first]),
        engines=[EngineSpec(one) for one in ENGINES],
        slots=SLOTS,
        prices=prices,
        measure=False,
        state_dir=str(stage.folder / name),
        drain_s=2.0,
        name=name,
    )
    given = stage.folder / f"{name}.json"
    given.write_bytes(msgspec.json.encode(config))

    async def ready() -> bool:
        # The link may be disturbed at that moment; that the process lives is all there is to wait for.
        return True

    process = Program(name, "tests.chaos.worker", (str(given),), folder=stage.folder, ready=ready)
    stage.workers.append(process)
    await process.start()


async def _stop(stage: Stage) -> None:
    for host in (*stage.pollers, *stage.hostile):
        await host.stop()
    if stage.balancer is not None:
        await stage.balancer.stop()
    servers = (stage.postgres, stage.redis)
    for part in reversed(stage.parts):
        if part in servers:
            await part.stop()
        elif part.pid:
            part.kill()
            await part.ended()
