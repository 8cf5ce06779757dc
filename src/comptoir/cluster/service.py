"""One coordinator among several: joins the others, and is what dispatch calls its peers."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence

from comptoir.cluster.event_news import EventNews
from comptoir.cluster.failover import Failover
from comptoir.cluster.fleet_view import FleetView
from comptoir.cluster.forwarding import Forwarding
from comptoir.cluster.messages import Hail
from comptoir.cluster.mirrors import Mirrors
from comptoir.cluster.offers import Offers
from comptoir.cluster.resource_sync import ResourceSync
from comptoir.cluster.sharing import Sharing
from comptoir.cluster.standing_news import StandingNews
from comptoir.cluster.switchboard import Switchboard
from comptoir.dispatch import ClusterStatus, Core, Membership, Peers
from comptoir.hosts import Host
from comptoir.jobs import JobState, LiveJob
from comptoir.kit.bus import Bus
from comptoir.kit.errors import Unavailable
from comptoir.routing import Candidate

log = logging.getLogger(__name__)


class Cluster(Peers):
    """The other coordinators, over a bus."""

    def __init__(self, core: Core, bus: Bus) -> None:
        self._core = core
        self.board = Switchboard(bus)
        self.view = FleetView(core, self.board)
        self.mirrors = Mirrors(core, self.board)
        self.offers = Offers(core, self.board, self.view, self.mirrors)
        self.forwarding = Forwarding(core, self.board)
        self.sharing = Sharing(core, self.board)
        self.news = EventNews(core, self.board, self.sharing)
        self.standing_news = StandingNews(core, self.board)
        self.resource_sync = ResourceSync(core, self.board)
        self.board.on(Hail, self._hailed)
        self.failover = Failover(
            core, self.board, self.mirrors, meet_node=self._tell_whole, forget_node=self._forget_node
        )

    def _hailed(self, sender: bytes, message: Hail) -> None:
        self._tell_whole(sender)

    def _tell_whole(self, node_id: bytes) -> None:
        self.view.tell_whole(node_id)
        self.sharing.tell_whole(node_id)
        self.resource_sync.tell_whole(node_id)

    def _forget_node(self, node_id: bytes) -> None:
        self.view.forget_node(node_id)
        self.mirrors.forget_node(node_id)
        self.sharing.forget_node(node_id)
        self.news.forget_node(node_id)
        self.resource_sync.forget_node(node_id)

    # -- Peers ---------------------------------------------------------------------------------------------------

    def offer(self, job: LiveJob, candidate: Candidate) -> bool:
        """Offer a waiting job of ours to the coordinator that *candidate* is linked to."""
        return self.offers.offer(job, candidate)

    def moved(self, job: LiveJob) -> None:
        """Another coordinator owns *job* now; which one is looked up."""
        self.mirrors.become_mirror(job, b"")

    def stop(self, job: LiveJob, reason: str) -> None:
        """Ask the owner of a mirrored job to cancel it."""
        self.mirrors.stop(job, reason)

    async def mirror(self, job: LiveJob) -> LiveJob:
        """Follow an unfinished job at its owner.

        Raises:
            Unavailable: no live coordinator owns it right now.
        """
        return await self.mirrors.follow(job)

    async def owner_of(self, job_id: bytes) -> bytes | None:
        """Return the other coordinator that owns an unfinished job."""
        state, owner = (await self._core.jobs.whereabouts([job_id])).get(job_id, ("", None))
        return owner if state in (JobState.QUEUED, JobState.RUNNING) and owner in self.board.here else None

    async def welcome(self, host_id: bytes, leases: Sequence[bytes]) -> None:
        """A host connected here: load what others wrote about it, and take over the jobs that it holds *leases* on.

        Raises:
            Unavailable: it holds leases of another coordinator, and the database is unavailable; it must reconnect.
        """
        # A host that only lost its connection for a moment is accepted without a database.
        with contextlib.suppress(Unavailable):
            await self._core.hosts.meet(host_id)
        await self.failover.claim_leases(host_id, list(leases))

    def waits_for_older(self, host: Host) -> bool:
        """Tell whether a slot of *host* is held briefly for a job elsewhere that has waited longer."""
        return self.offers.waits_for_older(host)

    def is_alive(self, node_id: bytes) -> bool:
        """Tell whether a coordinator is alive, this one included."""
        return node_id == self._core.node_id or node_id in self.board.here

    async def ensure_known(self, node_id: bytes) -> None:
        """Look up a coordinator that is not known here, because it may have just started."""
        if not self.is_alive(node_id):
            await self.failover.ensure_known(node_id)

    def cluster_status(self) -> ClusterStatus:
        """Return the state of the cluster."""
        board = self.board
        return ClusterStatus(
            len(board.here), board.up, board.traffic.gaps, len(self._core.jobs.live.mirrors), self.failover.claimed
        )


@contextlib.asynccontextmanager
async def joined(core: Core, bus: Bus) -> AsyncIterator[Cluster]:
    """Make *core* one coordinator of several until the block ends; then the others take over its jobs.

    Raises:
        Unavailable: the database is unavailable.
    """
    cluster = Cluster(core, bus)
    core.state(Membership).join(cluster)
    await cluster.board.start()
    await cluster.failover.begin()
    cluster.view.begin()
    running = asyncio.create_task(cluster.failover.run())
    try:
        yield cluster
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        cluster.view.stop()
        cluster.sharing.stop()
        cluster.news.stop()
        await cluster.mirrors.close()
        await cluster.failover.leave()
        await cluster.board.close()
