"""Statuses that programs on this machine report about their own work, to be queried beside jobs bought here.

They are only text: no money, no host, no receipt. Each belongs to a scope (who reported it), and only that scope sees
it.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence

import msgspec

from comptoir.dispatch import Core, State
from comptoir.kit.db import Tx
from comptoir.kit.errors import Unavailable

log = logging.getLogger(__name__)

RECORDED_MAX = 10_000
"""Most statuses kept per scope; the least recently updated are deleted first."""

RECORDED_NAME_CHARS_MAX = 256
"""Longest id that such a program may give its work."""

RECORDED_CONTAINERS_MAX = 32
"""Most containers named with it."""

FORGET_EVERY_S = 3600.0
"""How often old statuses are deleted; retention, set in days, is precise to an hour."""

DAY_MS = 24 * 3600 * 1000

UPSERT = """
INSERT INTO recorded (scope, name, status, containers, updated_ms) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (scope, name) DO UPDATE
SET status = excluded.status, containers = excluded.containers, updated_ms = excluded.updated_ms
"""

TRIM = """
DELETE FROM recorded WHERE scope = ? AND updated_ms < (
    SELECT updated_ms FROM recorded WHERE scope = ? ORDER BY updated_ms DESC LIMIT 1 OFFSET ?
)
"""

_encode = msgspec.json.Encoder().encode


class RecordedStatuses(State):
    """Statuses by scope and name."""

    def __init__(self, core: Core) -> None:
        self._db = core.db

    async def put(self, scope: str, name: str, *, status: str, containers: Sequence[str], at_ms: int) -> None:
        """Store a status, replacing the one before; durable when it returns."""

        def command(tx: Tx) -> None:
            tx.execute(UPSERT, [scope, name, status, _encode(list(containers)).decode(), at_ms])
            tx.execute(TRIM, [scope, scope, RECORDED_MAX - 1])

        await self._db.run(command)

    async def statuses(self, scope: str, names: Sequence[str]) -> dict[str, str]:
        """Return the status of each of *names* (at most 1,000) that was reported."""
        names = [name for name in names if "\0" not in name]  # PostgreSQL can't store such text.
        if not names:
            return {}
        marks = ",".join("?" * len(names))
        sql = f"SELECT name, status FROM recorded WHERE scope = ? AND name IN ({marks})"
        return {row[0]: row[1] for row in await self._db.fetch(sql, [scope, *names])}

    async def names(self, scope: str, *, running: bool | None, limit: int) -> list[str]:
        """Return the names reported, newest first; *running* selects those that are, or are no longer, running."""
        where = {None: "", True: " AND status = 'running'", False: " AND status <> 'running'"}[running]
        sql = f"SELECT name FROM recorded WHERE scope = ?{where} ORDER BY updated_ms DESC LIMIT {limit:d}"
        return [row[0] for row in await self._db.fetch(sql, [scope])]

    async def forget(self, *, older_than_ms: int) -> None:
        """Delete statuses not updated since then."""
        await self._db.run(lambda tx: tx.execute("DELETE FROM recorded WHERE updated_ms < ?", [older_than_ms]))


@contextlib.asynccontextmanager
async def forgetting(core: Core) -> AsyncIterator[None]:
    """Delete statuses not updated for ``retention_days``, every hour until the block ends; 0 keeps them."""
    task = asyncio.create_task(_forget_forever(core))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _forget_forever(core: Core) -> None:
    while core.settings.retention_days:
        try:
            await forget_old(core)
        except Unavailable as outage:
            log.warning("old statuses are kept until the database is back: %s", outage)
        await asyncio.sleep(FORGET_EVERY_S)


async def forget_old(core: Core) -> None:
    """Delete statuses past ``retention_days``.

    Raises:
        Unavailable: the database is unavailable.
    """
    older_than_ms = core.clock.now_ms() - core.settings.retention_days * DAY_MS
    await core.state(RecordedStatuses).forget(older_than_ms=older_than_ms)
