"""Heartbeats, and what happens when a coordinator's stop: its jobs are taken over, its hosts and clients count as gone.

The database decides who is alive, by its own clock. A coordinator judges others only after its own heartbeats have been
regular for as long as it requires of them: after a pause, or an outage of the database, all others look silent to it.
"""

import asyncio
import logging
from collections.abc import Callable, Collection

from comptoir.cluster.messages import Hail, Owned
from comptoir.cluster.mirrors import Mirrors
from comptoir.cluster.switchboard import Switchboard
from comptoir.dispatch import Core
from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.cancel import hang_up
from comptoir.dispatch.drain import Shutdown
from comptoir.dispatch.duties import Duties, Duty
from comptoir.hosts import OFFLINE
from comptoir.jobs import Fault, LiveJob
from comptoir.kit.errors import Refusal, Unavailable
from comptoir.nodes import NODE_SILENT_S, Node

log = logging.getLogger(__name__)

BEAT_S = 1.0
"""Interval between heartbeats; while the bus is down, others' waiting jobs are looked up in the database as often."""

SEARCH_EVERY = 10
"""Heartbeats between two searches for jobs without a live owner, even if no coordinator is known to have died."""

CLAIM_MAX = 64
"""Most waiting jobs taken from others at once."""


class Failover:
    """Knows which coordinators are alive, and takes over the jobs of dead ones."""

    def __init__(
        self,
        core: Core,
        switchboard: Switchboard,
        mirrors: Mirrors,
        *,
        meet_node: Callable[[bytes], None],
        forget_node: Callable[[bytes], None],
    ) -> None:
        self._core = core
        self._board = switchboard
        self._mirrors = mirrors
        self._meet_node = meet_node
        self._forget_node = forget_node
        self._loop = asyncio.get_running_loop()
        self._regular_since_s = 0.0
        self._beaten_s = self._loop.time()
        self._beats = 0
        self._strangers: set[bytes] = set()
        self._searching = asyncio.Lock()
        switchboard.on_change.append(self._bus_changed)
        self._absent: set[bytes] = set()
        """Coordinators without a connection to the database server at the last heartbeat; twice in a row means killed,
        because a live one reconnects within a fifth of a second."""
        self.claimed = 0
        """Jobs taken over so far."""
        self.nodes: list[Node] = []
        """All known coordinators, as of the last heartbeat."""

    async def begin(self) -> None:
        """Find the live coordinators, and take over jobs that none of them owns. Call it once, before serving.

        Raises:
            Unavailable: the database is unavailable.
        """
        now = self._loop.time()
        # A process that has just started has missed nothing: it can rely on what the database says about the others.
        self._regular_since_s = now - NODE_SILENT_S
        await self._beat()
        await self.search()

    async def run(self) -> None:
        """Send heartbeats and watch the others until cancelled."""
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self._beat()
                await self._mirrors.look()
                if not self._board.up:
                    await self._check_own([job for job in self._core.jobs.live.all() if job.watched])
                    await self._claim_waiting()
                self._core.state(Duties).done(Duty.CLUSTER)
            except Refusal as refusal:
                log.warning("no sign of life could be given: %s", refusal)
            except Exception:  # A loop's edge: one failed check must not be the last.
                log.exception("looking after the other coordinators failed")
                self._core.state(Duties).failed(Duty.CLUSTER)

    # -- beating -------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        now = self._loop.time()
        missed = now - self._beaten_s > NODE_SILENT_S
        self.nodes = await self._core.nodes.beat()
        await self._core.nodes.measure(self._core.clock.now_ms)
        after = self._loop.time()
        if missed or after - now > NODE_SILENT_S / 2:
            self._regular_since_s = after
        self._beaten_s = after
        me = next((node for node in self.nodes if node.id == self._core.node_id), None)
        if me is None:
            # This coordinator counted as gone for good: recreate its row, and look up which jobs others took over.
            await self._core.nodes.join()
            missed = True
        alive = self._judge()
        self._absent = {node.id for node in self.nodes if not node.connected}
        self._note(alive)
        if missed:
            await self._check_own(self._core.jobs.live.all())
        self._beats += 1
        if self._strangers or self._beats % SEARCH_EVERY == 0:
            await self.search()

    def _judge(self) -> frozenset[bytes]:
        """Return who is alive; one that fell silent stays alive while our own silence may be the cause."""
        sure = self._loop.time() - self._regular_since_s >= NODE_SILENT_S
        alive = set()
        for node in self.nodes:
            if node.id == self._core.node_id or node.left:
                continue
            absent = not node.connected and node.id in self._absent
            if (node.silent_ms < NODE_SILENT_S * 1000 and not (absent and sure)) or (
                not sure and node.id in self._board.here
            ):
                alive.add(node.id)
        return frozenset(alive)

    def _note(self, alive: frozenset[bytes]) -> None:
        before, self._board.here = self._board.here, alive
        for node_id in alive - before:
            log.info("coordinator %s is here", node_id.hex())
            self._board.send(node_id, Hail())
            # It may have hailed us a second ago, and what happened since was sent only to those known here.
            self._meet_node(node_id)
        for node_id in before - alive:
            log.warning("coordinator %s is gone", node_id.hex())
            self._strangers.add(node_id)
            self._forget_node(node_id)
            for job in self._of_home(node_id):
                hang_up(self._core, job)

    def _of_home(self, node_id: bytes) -> list[LiveJob]:
        """Return our jobs whose client was connected to a dead coordinator, which closed its connection."""
        return [job for job in self._core.jobs.live.all() if not job.detached and job.home_id == node_id]

    async def ensure_known(self, node_id: bytes) -> None:
        """Check whether an unknown coordinator is alive: it may have started since the last heartbeat."""
        if all(node.id != node_id for node in self.nodes):
            self.nodes = await self._core.nodes.beat()
        self._note(self._judge() | self._board.here)  # Only a heartbeat declares coordinators dead.

    # -- taking over ---------------------------------------------------------------------------------------------

    async def search(self) -> int:
        """Take over every unfinished job whose owner is dead; return how many. Several may do so concurrently."""
        async with self._searching:
            core, taken = self._core, 0
            if core.db.lost:
                return 0
            owners = await core.jobs.owners()
            if owners <= {core.node_id} | self._board.here:
                self._strangers.clear()
                return 0
            # Read again, after the owners: a coordinator that joined in between is alive.
            self.nodes = await core.nodes.beat()
            gone = list(owners - self._judge() - {core.node_id})
            while gone and (rows := await core.jobs.claim_orphans(node_id=core.node_id, of=gone)):
                taken += len(rows)
                self._board.tell_all(Owned([row.id for row in rows]))
                for row in rows:
                    await self._mirrors.resume_job(row)
                    self._check_host(row.id, gone)
            self._strangers.clear()
            self.claimed += taken
            if taken:
                log.info("took over %d jobs of coordinators that are gone", taken)
            return taken

    def _check_host(self, job_id: bytes, gone: Collection[bytes | None]) -> None:
        """Revoke the lease of a job whose host has since linked elsewhere without it, and so never got it."""
        core = self._core
        job = core.jobs.live.get(job_id)
        lease = job.lease if job is not None and not job.closing else None
        host = core.fleet.find(lease.host_id) if lease is not None else None
        if job is None or lease is None or host is None or not host.reach.one_place or host.status == OFFLINE:
            return
        if host.node_id not in gone and lease.started_ms < host.came_ms:
            why = "the host linked again without the job"
            core.background.spawn(revoke_lease(core, job, lease, why, fault=Fault.COORDINATOR, again=True))

    async def claim_leases(self, host_id: bytes, leases: list[bytes]) -> None:
        """A worker connected here with open leases: become the owner of their jobs."""
        core = self._core
        if core.db.lost:
            return
        unknown = [lease for lease in leases if core.jobs.live.by_lease(lease) is None]
        if not unknown:
            return
        rows = await core.jobs.claim_leases(unknown, node_id=core.node_id, host_id=host_id)
        if rows:
            self.claimed += len(rows)
            log.info("a worker brought %d jobs from another coordinator", len(rows))
            self._board.tell_all(Owned([row.id for row in rows]))
        for row in rows:
            await self._mirrors.resume_job(row)

    async def _check_own(self, mine: list[LiveJob]) -> None:
        """Find out which of our jobs others have taken over, because their messages may not have reached us."""
        live = self._core.jobs.live
        for first in range(0, len(mine), 500):
            part = mine[first : first + 500]
            found = await self._core.jobs.whereabouts([job.id for job in part])
            for job in part:
                owner = found.get(job.id, ("", None))[1]
                if owner is not None and owner != self._core.node_id and live.get(job.id) is job and not job.closing:
                    self._mirrors.become_mirror(job, owner)

    def _bus_changed(self, up: bool) -> None:
        if up:
            self._core.background.spawn(self._check_own(self._core.jobs.live.all()))

    async def _claim_waiting(self) -> None:
        """Without the bus: claim jobs that wait elsewhere for hosts that are free here."""
        core = self._core
        if core.state(Shutdown).draining or core.db.lost or len(core.jobs.queue):
            return
        free = {
            model: host.slots.free
            for host in core.fleet
            if not host.node_id and host.slots.free and host.id in core.channels
            for model in host.candidates
        }
        if not free:
            return
        limit = min(CLAIM_MAX, sum(free.values()))
        rows = await core.jobs.claim_waiting(node_id=core.node_id, models=list(free), limit=limit)
        for row in rows:
            await self._mirrors.resume_job(row)

    async def leave(self) -> None:
        """Mark this coordinator as left, so that others may take over its jobs at once."""
        try:
            await self._core.nodes.leave()
        except Unavailable as outage:
            log.warning("the goodbye could not be written: %s", outage)
