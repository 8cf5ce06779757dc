"""One coordinator without a bus: it resumes every unfinished job, so it has to be the only one on its database.

The data folder's lock keeps out a process with the same folder; whatever the lock's last holder left has no owner. A
coordinator on another machine is detected by its heartbeats, and waited for as long as a dead one takes to count as
dead.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from comptoir.cluster.failover import BEAT_S
from comptoir.dispatch import Core
from comptoir.dispatch.recover import recover
from comptoir.kit.errors import Refusal, Unavailable
from comptoir.kit.folderlock import FolderLock
from comptoir.nodes import NODE_SILENT_S

log = logging.getLogger(__name__)

LOCK_NAME = "coordinator.lock"

LOOK_S = 0.2


class NotAlone(Refusal):
    """Another coordinator uses this database, and no bus is configured."""

    def __init__(self) -> None:
        super().__init__(
            "another coordinator is at work on this database. Give all of them the same bus (--bus redis://…) and the same "
            "signing.key, or stop the other one"
        )


@contextlib.asynccontextmanager
async def alone(core: Core, folder: Path) -> AsyncIterator[None]:
    """Be the only coordinator until the block ends; resumes unfinished jobs first.

    Raises:
        FolderTaken: another process uses *folder*.
        NotAlone: another coordinator uses the database. Unavailable: the database is unavailable.
    """
    lock = FolderLock(folder, name=LOCK_NAME)
    before = lock.take()
    try:
        if before:
            await core.nodes.leave(before)
        if core.db.dialect == "postgresql":
            await _until_alone(core)
        lock.note(core.node_id)
        if not core.db.lost:  # Else once the operator has decided.
            await recover(core)
        beating = asyncio.create_task(_beat_forever(core))
        try:
            yield
        finally:
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beating
            with contextlib.suppress(Unavailable):  # The next start learns it from the lock.
                await core.nodes.leave()
    finally:
        lock.release()


async def _until_alone(core: Core) -> None:
    """Wait for other coordinators to fall silent, which live ones do not.

    Raises:
        NotAlone: another one still sends heartbeats.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + NODE_SILENT_S + BEAT_S
    while await core.nodes.others():
        if loop.time() > until_s:
            raise NotAlone
        await asyncio.sleep(LOOK_S)


async def _beat_forever(core: Core) -> None:
    """Send heartbeats, so that a coordinator started on this database by mistake notices."""
    while core.db.dialect == "postgresql":
        await asyncio.sleep(BEAT_S)
        with contextlib.suppress(Refusal):  # The database is unavailable, which everything else reports.
            await core.nodes.beat()
