"""The composition root: opens every room over one database, wires dispatch, and serves all dialects.

Exports `open_core` (the core without HTTP), `create_app` (the ASGI application over it) and `serve` (both, until a
signal).
"""

import asyncio
import contextlib
import ctypes
import gc
import logging
import resource
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn

from comptoir import __version__
from comptoir.cluster import Cluster, alone, joined
from comptoir.containers import forgetting
from comptoir.dialects import DIALECTS
from comptoir.dispatch import Core
from comptoir.dispatch.assign import assign_all_waiting, assign_waiting
from comptoir.dispatch.deferred_settlements import DeferredSettlements
from comptoir.dispatch.drain import Shutdown, drain
from comptoir.dispatch.expire import sweep_forever
from comptoir.dispatch.files import Files
from comptoir.dispatch.hedge import hedging
from comptoir.dispatch.lost_commits import LostCommits, watch_commits
from comptoir.dispatch.meters import Meters
from comptoir.dispatch.moderate import standing_of
from comptoir.dispatch.on_request import status_telling
from comptoir.events import CoordinatorDraining, DatabaseReturned, Events, HostFree
from comptoir.gateway import Connections, Gate, browser_policy
from comptoir.hosts import Fleet, Hosts, quarantine
from comptoir.idempotency import Idempotency
from comptoir.identity import Identity, Passwords
from comptoir.jobs import Jobs
from comptoir.kinds import load_kinds
from comptoir.kit.bus import open_bus
from comptoir.kit.clock import Clock
from comptoir.kit.db import RECORDS_NAME, CommitRecord, Database, open_database, own_record
from comptoir.kit.errors import Unavailable
from comptoir.kit.http import ACCEPT_TURNS, BoundedHttpProtocol, BoundedWebSocketProtocol, Dialect, HttpServer, is_news
from comptoir.kit.ids import new_id
from comptoir.kit.signing import load_or_create
from comptoir.kit.urlguard import UrlGuard
from comptoir.ledger import Ledger
from comptoir.migrations import upgrade
from comptoir.moderation import Moderation
from comptoir.nodes import Nodes, connection_name
from comptoir.receipts import Receipts
from comptoir.routing import preference_named
from comptoir.settings import Settings
from comptoir.transports.link import follow_loss, say_goodbye
from comptoir.transports.push import pushing
from comptoir.transports.webhook import delivering

log = logging.getLogger(__name__)

BACKLOG = 4096
"""Connections that may wait to be accepted."""

DATE_S = 1.0
"""How often the Date header is updated; its resolution is a second."""

LAST_BYTES_S = 2.0
"""How long clients have, after the drain, to read the last bytes of their answers."""

CUT_WITHIN_S = 1
"""Most seconds to wait for handlers whose connections were closed."""

LINK_PING_S = LINK_PONG_S = 20.0
"""Interval of pings on a worker's connection, and the time to answer one: a machine that hangs keeps its connections
open, and a container sends nothing before it is done."""

STOPPING = "the coordinator is stopping"
RECONNECT_AFTER_S = 0.5
"""How long workers of a stopping coordinator are told to wait before they reconnect."""

GC_THRESHOLDS = (5_000, 5, 4_000)
SWITCH_INTERVAL_S = 0.02

M_MMAP_THRESHOLD = -3
"""Number of this option of glibc's ``mallopt``."""

LARGE_BLOCK_BYTES = 1 << 20
"""Blocks of this size or more go back to the system when they are freed. By itself glibc keeps them once one was freed:
bodies and answers of 30 MB, each read in some thread, stayed in every thread's heap."""

RECURSION_LIMIT = 1_000
"""Python's default, which stops the parsing of a body nested 100,000 deep. Blockchain libraries (py_ecc, imported by
eth-account) raise it so far that such a body would overflow the stack and kill the process."""

POST_CHARS = 32
"""Characters of the signing key's id that name the trading post on the bus."""

DATA_MODE = 0o700
"""The data folder has keys and prompts in it: only its owner may read it."""


@contextlib.asynccontextmanager
async def open_core(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Core]:
    """Open the core: migrate the database, load the rooms, resume unfinished jobs, start the sweeps.

    Raises:
        ModuleNotFoundError: PostgreSQL is configured and ``comptoir[postgres]`` is not installed.
        KeyFileError: the signing key's file is readable by others.
        StoreUnusable: files can't be kept where ``files_store`` says.
        FolderTaken: another process uses the data folder.
        NotAlone: another coordinator uses the database, and there is no bus.
    """
    clock = clock or Clock()
    data = settings.data_path()
    data.mkdir(mode=DATA_MODE, parents=True, exist_ok=True)
    node_id = new_id()
    async with contextlib.AsyncExitStack() as closing:
        db = open_database(settings.database_address(), name=connection_name(node_id))
        closing.push_async_callback(db.close)
        await upgrade(db)
        core = await _rooms(settings, clock, data, db=db, node_id=node_id)
        core.state(Files)
        await closing.enter_async_context(_recorded(core, data))
        meters = core.state(Meters)
        core.events.subscribe(HostFree, lambda event: assign_waiting(core, event.host_id))
        core.events.subscribe(DatabaseReturned, lambda event: assign_all_waiting(core))
        hedging(core)
        follow_loss(core)
        core.background.spawn(_count_before(core, before_ms=clock.now_ms()))
        _, users = await core.identity.list_users(limit=1)
        meters.begin(users=users)
        try:
            async with (
                pushing(core, UrlGuard(allow_private=settings.allow_private_endpoint_urls)),
                _among_others(core, settings),
                forgetting(core),
                delivering(core),
            ):
                sweeper = asyncio.create_task(sweep_forever(core))
                try:
                    yield core
                finally:
                    sweeper.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await sweeper
                    await core.state(DeferredSettlements).close()
                    await core.background.drain_tasks()
        finally:
            meters.close()
            with contextlib.suppress(Unavailable):  # Only statistics of the last seconds are lost.
                await core.hosts.flush()
            core.identity.close()


@contextlib.asynccontextmanager
async def _recorded(core: Core, data: Path) -> AsyncIterator[None]:
    """Keep the commit record in *data* until the block ends; first see whether commits of before are missing."""
    files = own_record(data / RECORDS_NAME, now_ms=core.clock.now_ms())
    try:
        lost = core.state(LostCommits)
        await lost.open(CommitRecord(files, now_ms=core.clock.now_ms))
        watching = asyncio.create_task(watch_commits(core))
        try:
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            await lost.sign()
    finally:
        files.close()


@contextlib.asynccontextmanager
async def _among_others(core: Core, settings: Settings) -> AsyncIterator[None]:
    """Resume unfinished jobs: all of them on a single coordinator; with a bus, those that no live coordinator owns."""
    if not settings.bus:
        async with alone(core, settings.data_path()):
            yield
        return
    # All coordinators of a trading post share one signing key, so its id identifies the post.
    bus = open_bus(settings.bus, core.node_id, post=core.receipts.keyid[:POST_CHARS])
    async with joined(core, bus):
        yield


async def _count_before(core: Core, *, before_ms: int) -> None:
    """Count jobs that ended before this start, while serving: it reads the whole table, and only totals need it."""
    core.state(Meters).count_elsewhere(await core.jobs.ended_counts(before_ms=before_ms))


async def _rooms(settings: Settings, clock: Clock, data: Path, *, db: Database, node_id: bytes) -> Core:
    key = load_or_create(data / "signing.key")
    receipts = Receipts(db, clock, key)
    await receipts.start()
    kinds, events = load_kinds(settings.kinds), Events(db)
    jobs = Jobs(db, kinds)
    ledger = Ledger(db, clock, events=events)
    fleet = Fleet(
        clock,
        kinds=kinds,
        events=events,
        leases_here=jobs.live.slots_of,
        host_silent_s=settings.host_silent_s,
        host_away_s=settings.host_away_s,
        listed_max=settings.models_listed_max,
    )
    moderation = Moderation(db)
    await moderation.load()
    quarantine(fleet, moderation.quarantined)
    hosts = Hosts(
        db,
        clock,
        fleet,
        UrlGuard(allow_private=settings.allow_private_endpoint_urls),
        events=events,
        barred=lambda host_id, owner_id: moderation.against_host(host_id, owner_id) is not None,
        telling=status_telling(ledger, clock),
    )
    await hosts.load()
    passwords = Passwords(
        memory_kib=settings.argon2_memory_kib, passes=settings.argon2_passes, threads_max=settings.argon2_threads_max
    )
    identity = Identity(
        db,
        clock,
        events=events,
        passwords=passwords,
        logins_per_minute=settings.logins_per_minute,
        key_cache_size=settings.key_cache_size,
        standing=partial(standing_of, hosts, moderation),
    )
    secret = key.derive(b"comptoir-idempotency")
    nodes = Nodes(db, node_id)
    slot = await nodes.join(version=__version__)
    await ledger.open_operator_accounts(fee_slot=slot)
    return Core(
        settings=settings, clock=clock, db=db, identity=identity, ledger=ledger, hosts=hosts, fleet=fleet, jobs=jobs,
        receipts=receipts, idempotency=Idempotency(db, clock, secret=secret), nodes=nodes, events=events,
        preference=preference_named(settings.routing), moderation=moderation,
    )  # fmt: skip


def tune_interpreter() -> None:
    """Tune the process for one busy event loop beside a writer thread; call it once, when everything is open.

    Objects loaded by then live as long as the process, so the garbage collector skips them; and full collections become
    rare, since jobs are freed by reference count (5 % less CPU per request). What is looked at between two of them is
    little at a time: by 50,000 objects, a collection beside 5,000 links held the loop for 0.4 s; by 5,000 for 0.02 s.
    The writer releases the GIL at every statement; with the default switch interval of 5 ms it had to in between as
    well (5 % more CPU per job in bench_lives). Large blocks of memory are returned when they are freed.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    sys.setrecursionlimit(RECURSION_LIMIT)
    with contextlib.suppress(OSError, AttributeError):  # Only glibc has it, and elsewhere it is not needed.
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def allow_files() -> None:
    """Let the process open as many files as it may: every connection is one, and the usual soft limit of 1,024 is soon
    reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS has a hard limit without end, and refuses it.
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def create_app(core: Core) -> HttpServer:
    """Return the ASGI application that serves every dialect over *core*."""
    settings = core.settings
    gate = Gate(core.identity, settings, core.clock, dialects=DIALECTS)
    cluster = core.peers if isinstance(core.peers, Cluster) else None

    def without_key(dialect: Dialect) -> int:
        large = dialect.large_without_key(settings)
        return settings.body_bytes_max if large else settings.body_bytes_without_key_max

    server = HttpServer(
        core,
        DIALECTS,
        gate=gate,
        body_bytes_max=settings.body_bytes_max,
        without_key_bytes_max=without_key,
        browsers=browser_policy(settings),
        forward=cluster.forwarding.forward if cluster else None,
        served=core.state(Meters).served,
    )
    if cluster is not None:
        cluster.forwarding.begin(server)
        shared = {
            "key": gate.by_key,
            "host": gate.by_host,
            "ip": gate.by_ip,
            "login": core.identity.logins,
            **gate.by_path,
        }
        cluster.sharing.begin(shared)
    return server


@dataclass(frozen=True)
class Listening:
    """The address that the server listens on, set once it does."""

    core: Core
    url: str


class _Server(uvicorn.Server):
    """Uvicorn that drains before it stops: the first signal refuses new jobs and waits, the second stops at once."""

    def __init__(self, config: uvicorn.Config, app: HttpServer, core: Core, ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self._app = app
        self._core = core
        self._ready = ready
        self._loop = asyncio.get_running_loop()
        self._draining: asyncio.Task[None] | None = None
        self._stop_sweeping: Callable[[], None] | None = None
        self._signalled = False
        self._stopping = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._stop_sweeping = self._core.state(Connections).traffic.start()
        if self.started and self.servers:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; called from the signal handler."""
        if not self._signalled and not self.should_exit:
            self._signalled = True
            # The serving loop, not the policy's: a runner with a loop factory never sets the policy's.
            self._loop.call_soon_threadsafe(self._begin)
        else:
            self.should_exit = self.force_exit = True
            self._loop.call_soon_threadsafe(self._stopping.set)

    async def main_loop(self) -> None:
        """Update the Date header each second; return as soon as the server is to stop (uvicorn polls every 0.1 s)."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), DATE_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._draining is not None:
            self._draining.cancel()
        # The answers of leased jobs are complete. Connections still open after LAST_BYTES_S follow a job that stays
        # queued, or shutdown was forced. They would wait as long as drain_s, and with uvloop for ever.
        grace_s = 0.0 if self.force_exit else LAST_BYTES_S
        self.config.timeout_graceful_shutdown = round(grace_s) + CUT_WITHIN_S
        cutting = self._loop.call_later(grace_s, self._cut)
        try:
            await super().shutdown(sockets=sockets)
            for _ in range(ACCEPT_TURNS):
                await asyncio.sleep(0)
                self._cut()
        finally:
            cutting.cancel()
            if self._stop_sweeping is not None:
                self._stop_sweeping()

    def _cut(self) -> None:
        """Close every connection as if its client hung up: delivered units are paid for."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def stop(self) -> None:
        """Drain, then stop."""
        self._begin()

    def _begin(self) -> None:
        if self._draining is None:
            self._core.state(Shutdown).announce()
            self._app.closing = True
            self._draining = asyncio.get_running_loop().create_task(self._drain())
            self._core.events.publish(CoordinatorDraining(self._core.jobs.live.open_answers))

    async def _drain(self) -> None:
        core = self._core
        await asyncio.sleep(core.settings.drain_notice_s)
        core.state(Shutdown).refuse_jobs()
        standing = core.peers.cluster_status()
        if standing is not None and standing.others:
            # Workers go on serving elsewhere while answers finish here; they take their jobs along, whose readers
            # follow.
            await say_goodbye(core, reason=STOPPING, reconnect_after_s=0.0)
        await drain(core)
        await say_goodbye(core, reason=STOPPING, reconnect_after_s=RECONNECT_AFTER_S)
        self.should_exit = True
        self._stopping.set()


def bind(settings: Settings) -> socket.socket:
    """Bind the address given by *settings*; nothing is accepted yet.

    Raises:
        OSError: it is in use, not this machine's, or not permitted.
    """
    family, *_ = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)


def _server(core: Core, on_url: Callable[[str], None]) -> _Server:
    settings = core.settings
    app = create_app(core)
    traffic = core.state(Connections).traffic
    config = uvicorn.Config(
        app,
        interface="asgi3",
        loop="none",
        http=partial(BoundedHttpProtocol, traffic=traffic),  # type: ignore[arg-type]  # A class, as it is called.
        # The gate reads X-Forwarded-For by the setting trusted_proxies; uvicorn would trust anybody on loopback.
        proxy_headers=False,
        ws=partial(BoundedWebSocketProtocol, traffic=traffic),  # type: ignore[arg-type]
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        ws_max_size=settings.link_message_bytes_max,
        ws_per_message_deflate=False,
        ws_ping_interval=LINK_PING_S,
        ws_ping_timeout=LINK_PONG_S,
        backlog=BACKLOG,
        timeout_keep_alive=75,
    )
    logging.getLogger("uvicorn.error").addFilter(is_news)
    return _Server(config, app, core, on_url)


async def serve(
    settings: Settings,
    *,
    on_open: Callable[[Core], Awaitable[None]] | None = None,
    on_ready: Callable[[Listening], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain: no answer is cut, nothing is lost. A second signal stops at once.

    Args:
        on_open: awaited when the rooms are open and nobody is served yet; a place to subscribe to events.
        on_ready: called when the first request can be answered.

    Raises:
        OSError: the address is in use; the database was not touched.
    """
    with contextlib.closing(bind(settings)) as listener:
        async with open_core(settings) as core:
            if on_open is not None:
                await on_open(core)
            tune_interpreter()
            allow_files()
            server = _server(core, lambda url: on_ready(Listening(core, url)) if on_ready else None)
            await server.serve(sockets=[listener])


@contextlib.asynccontextmanager
async def running(core: Core) -> AsyncIterator[str]:
    """Serve *core* in this event loop without touching signals; yields the address, and drains at the end."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = _server(core, ready.set_result)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(server.serve(sockets=[bind(core.settings)]))
    try:
        await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
        yield ready.result()
    finally:
        server.stop()
        await task
