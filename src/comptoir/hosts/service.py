"""Registering hosts, and keeping the stored records in step with the fleet."""

import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace

from comptoir.events import EventHub, HostChanged
from comptoir.hosts import store
from comptoir.hosts.check import check_host
from comptoir.hosts.errors import UnknownHost
from comptoir.hosts.fleet import Fleet
from comptoir.hosts.host import Host
from comptoir.hosts.reputation import START, Reputation
from comptoir.hosts.shapes import in_shape, shape_of
from comptoir.hosts.types import OFFLINE, SUSPENDED, HostRow, LastHeard, NewHost, StatusTelling
from comptoir.kit.clock import Clock
from comptoir.kit.db import Database, Rows, Tx
from comptoir.kit.errors import Unavailable
from comptoir.kit.ids import new_id
from comptoir.kit.urlguard import UrlGuard

FLUSH_ROWS_MAX = 1000
"""Hosts written per command, so that a large fleet's statistics never block the writer for long."""


async def nobody_asks(owner_ids: Collection[bytes]) -> StatusTelling | None:
    """No owner asks to be told of changes."""
    return None


class Hosts:
    """The stored hosts; `fleet` has their current state in memory."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        fleet: Fleet,
        guard: UrlGuard,
        *,
        events: EventHub | None = None,
        barred: Callable[[bytes, bytes | None], bool] = lambda host_id, owner_id: False,
        telling: Callable[[Collection[bytes]], Awaitable[StatusTelling | None]] = nobody_asks,
    ) -> None:
        """*barred* tells of a host, by its id and its owner's, whether it may not serve now; *telling* how those of
        some owners are told of their hosts' status who ask to be, if any of them does."""
        self._db = db
        self._clock = clock
        self._guard = guard
        self._events = events or EventHub()
        self._barred = barred
        self._telling = telling
        self._suspended: dict[bytes, Host] = {}
        self.fleet = fleet

    @property
    def suspended(self) -> Mapping[bytes, Host]:
        """Hosts that are barred: no longer in the fleet, so that nothing can find them there, but not retired."""
        return self._suspended

    async def load(self) -> int:
        """Load every stored host into the fleet, offline until seen; return how many. Call once at start."""
        rows = await store.read_all(self._db)
        for row in rows:
            self._take(row)
        return len(rows)

    def _take(self, row: HostRow) -> bool:
        """Put a stored host into the fleet, or among the suspended; tell whether it may serve."""
        if self._barred(row.id, row.owner_id):
            self._set_aside(row)
            return False
        self._suspended.pop(row.id, None)
        self.fleet.add(row)
        return True

    def _set_aside(self, row: HostRow) -> None:
        host = self._suspended[row.id] = Host(row)
        host.status = SUSPENDED

    def with_suspended(
        self, found: list[Host], total: int, *, limit: int, offset: int, owner_id: bytes | None = None
    ) -> tuple[list[Host], int]:
        """Return a page of the fleet's list (*found* of *total*) with the suspended hosts after its last."""
        aside = [host for host in self._suspended.values() if owner_id in (None, host.row.owner_id)]
        first = max(0, offset - total)
        return found + aside[first : first + limit - len(found)], total + len(aside)

    def prepare(self, new: NewHost, *, host_id: bytes | None = None) -> HostRow:
        """Check a registration and give it an id; nothing is stored. Then `insert_host` in a command, then `admit`.

        Args:
            host_id: given if an Idempotency-Key determines it.

        Raises:
            InvalidField: see `check_host`.
        """
        check_host(new, self._guard, self.fleet.kinds)
        speaks = shape_of(new.transport, new.speaks)
        return HostRow(
            id=host_id or new_id(),
            owner_id=new.owner_id,
            gpu=new.gpu,
            vram_mib=new.vram_mib,
            region=new.region,
            tier=new.tier,
            backend=new.backend,
            transport=new.transport,
            endpoint_url=new.endpoint_url,
            models=in_shape(speaks, new.models),
            slots=new.slots,
            status=OFFLINE,
            public_key=new.public_key,
            created_ms=self._clock.now_ms(),
            last_seen_ms=0,
            speaks=speaks,
            capacity=new.capacity,
            address_block=new.address_block if new.owner_id is None else None,
        )

    async def with_standing(self, row: HostRow) -> HostRow:
        """Return a registration with the evidence that it starts with: that of its owner's worst host, if there is one
        that stands below where every host starts, retired ones included. A host without owner has none."""
        if row.owner_id is None:
            return row
        worst, lowest = None, START
        for known in await store.read_doubted(self._db, row.owner_id):
            host = self.fleet.find(known.id)
            stands = Reputation()
            stands.take_over((Host(known) if host is None or host.node_id else host).reputation)
            if (score := stands.score(row.created_ms)) < lowest:
                worst, lowest = stands, score
        if worst is None:
            return row
        new = Host(row)
        new.reputation.take_over(worst)
        return new.stored()

    def admit(self, row: HostRow) -> Host:
        """Add a stored host to the fleet. Registering is a sign of life: active, unless its transport is a link."""
        host = self.fleet.add(row)
        self.fleet.seen(row.id)
        return host

    async def register(self, new: NewHost) -> Host:
        """Check, store and admit a host.

        Raises:
            InvalidField: see `check_host`; nothing is stored.
        """
        row = await self.with_standing(self.prepare(new))
        await self._db.run(lambda tx: store.insert_host(tx, row))
        return self.admit(row)

    async def read(self, host_id: bytes) -> HostRow:
        """Return the stored record, even of a retired host (receipts need its key).

        Raises:
            UnknownHost: it was never registered.
        """
        row = await store.read_one(self._db, host_id)
        if row is None:
            raise UnknownHost(host_id)
        return row

    async def retired_before(self, host_ids: Sequence[bytes], at_ms: int) -> set[bytes]:
        """Return those of *host_ids* (at most 1,000) that were retired at *at_ms* or earlier."""
        return await store.retired_before(self._db, host_ids, at_ms) if host_ids else set()

    async def meet(self, host_id: bytes) -> bool:
        """Load a host that another coordinator registered, or refresh its statistics; False if it may not serve here.

        Call it before the host is served here: the coordinator that it comes from wrote its statistics.
        """
        row = await store.read_one(self._db, host_id)
        if row is None or row.retired_ms is not None:
            self._suspended.pop(host_id, None)
            return False
        host = self.fleet.find(host_id)
        if host is None:
            return self._take(row)
        if host.node_id or not host.linked:
            host.remember(row)
        return True

    @staticmethod
    def is_retired(tx: Tx, host_id: bytes, *, or_heard_after_ms: int | None = None) -> bool:
        """Tell whether a host is retired (or was heard after that time), inside a larger command; locks its row.

        Raises:
            UnknownHost: it was never registered.
        """
        found = store.read_for_update(tx, host_id)
        if found is None:
            raise UnknownHost(host_id)
        retired_ms, last_seen_ms = found
        return retired_ms is not None or (or_heard_after_ms is not None and last_seen_ms > or_heard_after_ms)

    @staticmethod
    def retire_in(tx: Tx, host_id: bytes, now_ms: int) -> None:
        """Retire a host for good inside a larger command, keeping its record; every coordinator has to `bar` it."""
        store.retire(tx, host_id, now_ms)

    @staticmethod
    def rows_of(host_id: bytes) -> Rows:
        """Return what `is_retired` locks, to be declared with its command."""
        return (store.row_of(host_id),)

    async def last_heard(self, *, after: bytes, limit: int) -> list[LastHeard]:
        """Return at most *limit* hosts with an id after *after*, by id, and when each was heard last (5 s late)."""
        return await store.last_heard(self._db, after, limit)

    async def bar(self, host_id: bytes, *, for_good: bool) -> None:
        """Take a host out of the fleet, so that it gets no jobs and is offered nowhere; idempotent.

        The caller has to move the jobs that it runs. What was measured of it is stored first, if it was measured here.
        """
        if for_good:
            self._suspended.pop(host_id, None)
        host = self.fleet.find(host_id)
        if host is None:
            return
        row, here = replace(host.stored(), status=OFFLINE), not host.node_id
        self.fleet.remove(host_id)
        if not for_good:
            self._set_aside(row)
        if here:
            with contextlib.suppress(Unavailable):  # Only the last seconds' statistics are lost.
                await self._write([row], moved={row.id})

    async def readmit(self, host_id: bytes) -> bool:
        """Take a suspended host back into the fleet, offline until seen; False: it is retired, or still barred."""
        return self.fleet.find(host_id) is not None or await self.meet(host_id)

    async def flush(self) -> int:
        """Write what changed since the last flush, in commands of `FLUSH_ROWS_MAX`; return how many hosts.

        Statistics since the last flush are lost when the process is killed; jobs and money never depend on them.
        If a command fails, its hosts stay marked and the error is raised.
        """
        written = 0
        while self.fleet.changed:
            ids = [self.fleet.changed.pop() for _ in range(min(FLUSH_ROWS_MAX, len(self.fleet.changed)))]
            moved = self.fleet.moved.intersection(ids)
            self.fleet.moved -= moved
            rows = [host.stored() for host in map(self.fleet.find, ids) if host is not None and not host.node_id]
            try:
                written += await self._write(rows, moved=moved)
            except BaseException:
                # Cancelled or failed: keep the marks.
                known = {id_ for id_ in ids if self.fleet.find(id_) is not None}
                self.fleet.changed |= known
                self.fleet.moved |= known & moved
                raise
            if len(ids) < FLUSH_ROWS_MAX:
                break
        return written

    async def _write(self, rows: list[HostRow], *, moved: Collection[bytes]) -> int:
        """Write what is known of some hosts, and tell of those of *moved* whose stored status changes."""
        telling = await self._telling_of([row.owner_id for row in rows if row.id in moved])

        def command(tx: Tx) -> tuple[int, Sequence[HostChanged]]:
            written, changes = store.write_behind(tx, rows)
            return written, telling.number(tx, changes) if telling is not None else ()

        locks = [*telling.locks] if telling is not None else []
        written, events = await self._db.run(command, locks=[*locks, store.host_rows([row.id for row in rows])])
        for event in events:
            self._events.publish(event)
        return written

    async def write_gone(self, hosts: Sequence[Host], *, before_ms: int) -> None:
        """Store as offline, and tell of, those of *hosts* that were last heard before *before_ms*, and not here.

        What a coordinator that was killed knew last is that they were there.
        """
        telling = await self._telling_of([host.row.owner_id for host in hosts])
        if telling is not None:
            ids = [host.id for host in hosts]

            def command(tx: Tx) -> Sequence[HostChanged]:
                return telling.number(tx, store.write_gone(tx, ids, before_ms=before_ms))

            for event in await self._db.run(command, locks=[*telling.locks, store.host_rows(ids)]):
                self._events.publish(event)

    async def _telling_of(self, owner_ids: Sequence[bytes | None]) -> StatusTelling | None:
        owners = {owner_id for owner_id in owner_ids if owner_id is not None}
        return await self._telling(owners) if owners else None
