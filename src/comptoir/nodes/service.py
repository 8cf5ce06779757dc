"""Join, send a heartbeat every second, leave; and read which other coordinators do."""

from collections.abc import Callable, Sequence

from comptoir.kit.db import Database, Tx, despite_loss
from comptoir.nodes.tables import NODES
from comptoir.nodes.types import Node

NODE_SILENT_S = 4.0
"""A coordinator silent for this long, four heartbeats, counts as dead. Its later writes are refused by compare-and-set,
so a wrong guess only costs moving its jobs."""

NAME_PREFIX = "comptoir-"

FORGET_MS = 3_600_000
"""Rows of coordinators gone for longer are deleted; a coordinator without a row counts as gone."""

NOW = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)",
}
"""The database's clock, in milliseconds."""

LOCK = "SELECT pg_advisory_xact_lock(7164780238602)"
"""Makes coordinators that start together choose their slots one after the other."""


class Nodes:
    """The coordinators of one database, as the one with *node_id* sees them.

    Heartbeats go on while commits are missing: the others must not take over jobs that may have been settled.
    """

    def __init__(self, db: Database, node_id: bytes) -> None:
        self._db = db
        self._now = NOW[db.dialect]
        self.node_id = node_id
        self._version = ""
        self.ahead_ms = 0
        """How far the database's clock is ahead of ours, as of the last `measure`; 0 before."""

    async def join(self, *, version: str = "") -> int:
        """Write this coordinator's row; return its slot, the lowest that no live coordinator has. Idempotent.

        Args:
            version: given once; a deleted row is recreated with it.
        """
        self._version = version = version or self._version

        def command(tx: Tx) -> int:
            if tx.dialect == "postgresql":
                tx.fetch(LOCK)
            tx.execute(f"DELETE FROM nodes WHERE seen_ms < {self._now} - {FORGET_MS}")
            rows = _read(tx, self._now)
            mine = next((node.slot for node in rows if node.id == self.node_id), None)
            if mine is not None:
                sql = f"UPDATE nodes SET seen_ms = {self._now}, left_ms = NULL WHERE id = ?"
                tx.execute(sql, [self.node_id])
                return mine
            taken = {node.slot for node in rows if not node.left and node.silent_ms < NODE_SILENT_S * 1000}
            slot = next(number for number in range(len(taken) + 1) if number not in taken)
            ((now,),) = tx.fetch(f"SELECT {self._now}")
            tx.insert(NODES, [(self.node_id, slot, version, now, now, None)])
            return slot

        with despite_loss():
            return await self._db.run(command)

    async def beat(self) -> list[Node]:
        """Send a heartbeat and return every known coordinator, including this one (unless its row was deleted).

        Raises:
            Unavailable: the database is unavailable, so nobody knows who is alive.
        """

        def command(tx: Tx) -> list[Node]:
            tx.execute(f"UPDATE nodes SET seen_ms = {self._now} WHERE id = ? AND left_ms IS NULL", [self.node_id])
            return _read(tx, self._now, connected=self._connected(tx))

        with despite_loss():
            return await self._db.run(command)

    def _connected(self, tx: Tx) -> frozenset[str] | None:
        """Return the connection names that the server shows; None: it does not even show ours."""
        if tx.dialect != "postgresql":
            return None
        sql = "SELECT DISTINCT application_name FROM pg_stat_activity WHERE starts_with(application_name, ?)"
        names = frozenset(str(row[0]) for row in tx.fetch(sql, [NAME_PREFIX]))
        return names if connection_name(self.node_id) in names else None

    async def measure(self, now_ms: Callable[[], int]) -> None:
        """Compare our wall clock, *now_ms*, with the database's; exact to half the query's round trip."""
        before_ms = now_ms()
        theirs_ms = await self._db.evaluate(self._now)
        self.ahead_ms = int(theirs_ms) - (before_ms + now_ms()) // 2

    async def leave(self, node_id: bytes | None = None) -> None:
        """Mark this coordinator (or *node_id*, known to be dead) as left: others may take over its jobs at once."""
        sql = f"UPDATE nodes SET left_ms = {self._now} WHERE id = ?"
        with despite_loss():
            await self._db.run(lambda tx: tx.execute(sql, [node_id or self.node_id]))

    async def others(self) -> list[Node]:
        """Send a heartbeat; return the other live coordinators."""
        return [
            node
            for node in await self.beat()
            if node.id != self.node_id and not node.left and node.silent_ms < NODE_SILENT_S * 1000
        ]


def connection_name(node_id: bytes) -> str:
    """Return the name of a coordinator's connections to PostgreSQL, by which others see when the kernel closed them."""
    return NAME_PREFIX + node_id.hex()


def _read(tx: Tx, now: str, *, connected: frozenset[str] | None = None) -> list[Node]:
    rows: Sequence[tuple[object, ...]] = tx.fetch(
        f"SELECT id, slot, version, {now} - seen_ms, left_ms IS NOT NULL FROM nodes ORDER BY id"
    )
    return [
        Node(
            bytes(node_id),  # type: ignore[call-overload]
            int(slot),  # type: ignore[call-overload]
            str(version),
            int(silent_ms),  # type: ignore[call-overload]
            connected is None or connection_name(bytes(node_id)) in connected,  # type: ignore[call-overload]
            bool(left),
        )
        for node_id, slot, version, silent_ms, left in rows
    ]
