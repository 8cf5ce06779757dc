"""Peers: the other coordinators of this trading post, as the verbs see them; the base class is for having none."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from comptoir.hosts import Host
from comptoir.jobs import LiveJob
from comptoir.kit.errors import Unavailable
from comptoir.routing import Candidate

log = logging.getLogger(__name__)


class ClusterStatus(NamedTuple):
    """State of the cluster as seen from here, for metrics."""

    others: int
    """Other coordinators that are alive."""
    bus_up: bool
    gaps: int
    """Times that a gap was found in another coordinator's messages."""
    mirrors: int
    """Jobs of other coordinators that are read here."""
    taken_over: int
    """Jobs taken over from others since the start."""


class Peers:
    """The other coordinators. This base class knows of none; `comptoir.cluster` overrides every method."""

    def offer(self, job: LiveJob, candidate: Candidate) -> bool:
        """Offer a waiting job of ours to the coordinator that *candidate* is linked to; declined, it is enqueued here.

        False: that coordinator can't be asked now, or there is none; the job is not enqueued.
        """
        return False

    def moved(self, job: LiveJob) -> None:
        """Another coordinator owns *job* now: the object here becomes a mirror, and its readers continue."""
        log.error("job %s was taken over by a coordinator that this one does not know of", job.id.hex())

    def stop(self, job: LiveJob, reason: str) -> None:
        """Ask the owner of a mirrored job to cancel it."""
        log.error("job %s is owned by a coordinator that this one does not know of: %s", job.id.hex(), reason)

    async def mirror(self, job: LiveJob) -> LiveJob:
        """Return a mirror that follows the unfinished *job* (as read from the database) at its owner, from frame 0 on.

        Raises:
            Unavailable: no live coordinator owns it right now; try again.
        """
        raise Unavailable("the job is being resumed; try again")

    async def owner_of(self, job_id: bytes) -> bytes | None:
        """Return the id of the other coordinator that owns an unfinished job; None: it is over, unknown, or ours."""
        return None

    async def welcome(self, host_id: bytes, leases: Sequence[bytes]) -> None:
        """A host connected here: load what others wrote about it, and take over the jobs that it holds *leases* on.

        Raises:
            Unavailable: the database is unavailable, so the leases' owners can't be known; the host must reconnect.
        """

    def waits_for_older(self, host: Host) -> bool:
        """Tell whether a job elsewhere has waited longer for *host* than any here; it is requested but may not come."""
        return False

    def is_alive(self, node_id: bytes) -> bool:
        """Tell whether a coordinator is alive, this one included."""
        return False

    async def ensure_known(self, node_id: bytes) -> None:
        """Make sure `is_alive` knows of a coordinator that may have just started.

        Raises:
            Unavailable: the coordinator is unknown here, and the database is unavailable.
        """

    def cluster_status(self) -> ClusterStatus | None:
        """Return the state of the cluster; None for a single coordinator."""
        return None
