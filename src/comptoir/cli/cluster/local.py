"""A whole cluster on this machine: PostgreSQL, Redis, coordinators and a balancer, each restarted when it dies."""

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comptoir.app import BACKLOG, DATA_MODE
from comptoir.cli.cluster.balancer import Balancer
from comptoir.cli.cluster.child import ClusterProcess
from comptoir.cli.cluster.coordinator import Coordinator, OnEvent
from comptoir.cli.cluster.postgres import LocalPostgres
from comptoir.cli.cluster.redis import LocalRedis
from comptoir.cli.failure import Failure
from comptoir.kit.signing import load_or_create

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0
CHECKED_EVERY_S, PASSED_BY_S = 1.0, 3.0
"""How often coordinators are checked, and for how long an unhealthy one gets no connections while others do."""
STEADY_S = 60.0
"""A part that ran this long has recovered: its next crash starts with a short wait again."""


def _quiet(part: str, kind: str, facts: dict[str, Any]) -> None:
    """Tell nobody."""


class LocalCluster:
    """*coordinators* of one trading post in *data*, behind one address.

    Parts are attributes, for tests that kill them: `postgres` and `redis` (None when the addresses of others were
    given), `coordinators`, `balancer`.
    """

    def __init__(
        self,
        data: Path,
        *,
        coordinators: int,
        listener: socket.socket | None = None,
        database: str = "",
        bus: str = "",
        options: Sequence[str] = (),
        drain_s: float = 10.0,
        fsync: bool = True,
        supervised: bool = True,
        on_event: OnEvent = _quiet,
    ) -> None:
        """Describe it; nothing runs yet, and nothing is written.

        Args:
            listener: bound socket for the balancer; None takes a free port on loopback.
            database, bus: servers that run already; empty starts them here.
            options: more of the command line of each coordinator.
            fsync: false for tests only (`LocalPostgres`).
            supervised: start again what dies. False for tests that do so themselves.
            on_event: hears of each part ``Starting``, ``Started``, ``Crashed`` (code, in_s), ``StartFailed`` (why,
                in_s), and what coordinators say (``Listening``, ``Draining``).
        """
        self.data = data
        self._options, self._drain_s = options, drain_s
        self._supervised = supervised
        self._on_event = on_event
        self.postgres = None if database else LocalPostgres(data / "postgres", fsync=fsync)
        self.redis = None if bus else LocalRedis(data / "redis")
        self._database, self._bus = database, bus
        self._wanted = coordinators
        self.coordinators: list[Coordinator] = []
        self.balancer = Balancer(listener or socket.create_server(("127.0.0.1", 0), backlog=BACKLOG))
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        """Address of the trading post: the balancer's."""
        return self.balancer.url

    @property
    def database(self) -> str:
        """Address of the database."""
        return self.postgres.url if self.postgres is not None else self._database

    @property
    def bus(self) -> str:
        """Address of the bus."""
        return self.redis.url if self.redis is not None else self._bus

    async def start(self) -> None:
        """Start everything in order; when this returns, any request can be answered.

        Raises:
            Failure: a part can't start; those that run are still to be stopped.
        """
        self.data.mkdir(mode=DATA_MODE, parents=True, exist_ok=True)
        # Made before anybody needs it: all coordinators of one post sign with one key.
        load_or_create(self.data / "signing.key")
        for server in (self.postgres, self.redis):
            if server is not None:
                await self._start(server)
        self.coordinators = [
            Coordinator(
                number,
                data=self.data,
                database=self.database,
                bus=self.bus,
                options=self._options,
                drain_s=self._drain_s,
                on_event=self._part_event,
            )
            for number in range(1, self._wanted + 1)
        ]
        first, *others = self.coordinators
        # The first applies the migrations and makes the first people.
        await self._start(first)
        await asyncio.gather(*map(self._start, others))
        await self.balancer.start()
        self._keepers.append(asyncio.create_task(self._check()))

    async def stop(self) -> None:
        """End everything in order: coordinators drain, all at once, then the balancer, Redis and PostgreSQL."""
        for part in self.parts():
            part.stopping = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(one.stop() for one in self.coordinators))
        await self.balancer.stop()
        for server in (self.redis, self.postgres):
            if server is not None:
                await server.stop()

    def kill_coordinators(self) -> None:
        """End all coordinators at once; nobody starts them again."""
        for one in self.coordinators:
            one.stopping = True
            one.kill()

    def parts(self) -> list[ClusterProcess]:
        """Return every process of the cluster but workers."""
        return [part for part in (self.postgres, self.redis, *self.coordinators) if part is not None]

    async def _start(self, part: ClusterProcess) -> None:
        self._on_event(part.name, "Starting", {})
        began_s = asyncio.get_running_loop().time()
        await part.start()
        self._on_event(part.name, "Started", {"pid": part.pid, "took_s": asyncio.get_running_loop().time() - began_s})
        if isinstance(part, Coordinator):
            self.balancer.offer(part.address)
        if self._supervised:
            self._keepers.append(asyncio.create_task(self._keep(part)))

    async def _keep(self, part: ClusterProcess) -> None:
        """Start *part* again whenever it dies, with a back-off."""
        loop = asyncio.get_running_loop()
        wait_s, began_s = BACKOFF_FIRST_S, loop.time()
        while True:
            code = await part.ended()
            if part.stopping:
                return
            if isinstance(part, Coordinator):
                self.balancer.remove(part.address)
            if loop.time() - began_s > STEADY_S:
                wait_s = BACKOFF_FIRST_S
            self._on_event(part.name, "Crashed", {"code": code, "in_s": wait_s})
            while True:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, BACKOFF_MAX_S)
                began_s = loop.time()
                try:
                    await part.start()
                    break
                except Failure as failure:
                    self._on_event(part.name, "StartFailed", {"why": failure.message, "in_s": wait_s})
            if isinstance(part, Coordinator):
                self.balancer.offer(part.address)
            self._on_event(part.name, "Started", {"pid": part.pid, "took_s": loop.time() - began_s})

    async def _check(self) -> None:
        """Find coordinators that accept and do not answer (SIGSTOP, swapping); the balancer can't see that."""
        while True:
            asked = [one for one in self.coordinators if not one.down()]
            well = await asyncio.gather(*(one.answers() for one in asked))
            for one, fine in zip(asked, well, strict=True):
                self.balancer.pass_by(one.address, for_s=0.0 if fine else PASSED_BY_S)
            await asyncio.sleep(CHECKED_EVERY_S)

    def _part_event(self, name: str, kind: str, facts: dict[str, Any]) -> None:
        if kind == "Draining":
            part = next(one for one in self.coordinators if one.name == name)
            # It refuses jobs from now on; the others do not.
            self.balancer.offer(part.address, open=False)
        self._on_event(name, kind, facts)
