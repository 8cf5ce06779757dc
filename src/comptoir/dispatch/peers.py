"""Peers: the other coordinators of this trading post, as the verbs see them; and what they see where there are none."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from comptoir.hosts import Host
from comptoir.jobs import LiveJob
from comptoir.kit.errors import Unavailable
from comptoir.routing import Candidate

log = logging.getLogger(__name__)


class ClusterStatus(NamedTuple):
    """How it stands with the other coordinators, for metrics."""

    others: int
    """That are alive."""
    bus_up: bool
    gaps: int
    """Times that messages of one of them were found lost."""
    mirrors: int
    """Jobs of others that are read here."""
    taken_over: int
    """Jobs taken over from others since the start."""


class Peers:
    """The other coordinators. This class is a coordinator alone; `comptoir.cluster` overrides every method."""

    def offer(self, job: LiveJob, candidate: Candidate) -> bool:
        """Offer a waiting job of ours to the coordinator that *candidate* is linked to; declined, it waits in line.

        False: that one can't be asked now, or nobody is there; the job is in no line.
        """
        return False

    def moved(self, job: LiveJob) -> None:
        """Another coordinator owns *job* now: what is here of it becomes a mirror, and its readers go on."""
        log.error("job %s was taken over by a coordinator that this one does not know of", job.id.hex())

    def stop(self, job: LiveJob, reason: str) -> None:
        """Ask the owner of a mirrored job to cancel it."""
        log.error("job %s is owned by a coordinator that this one does not know of: %s", job.id.hex(), reason)

    async def mirror(self, job: LiveJob) -> LiveJob:
        """Return what follows the unfinished job *job* (as read from the database) at its owner, from frame 0 on.

        Raises:
            Unavailable: nobody owns it right now; try again.
        """
        raise Unavailable("the job is being resumed; try again")

    async def owner_of(self, job_id: bytes) -> bytes | None:
        """Return the other coordinator that owns an unfinished job; None: it is over, unknown, or ours."""
        return None

    async def welcome(self, host_id: bytes, leases: Sequence[bytes]) -> None:
        """A host came here: learn of it what others wrote, and take over the jobs that it brings leases on.

        Raises:
            Unavailable: the database is away, and whose its leases are can't be known; it must come again, with its frames.
        """

    def waits_for_older(self, host: Host) -> bool:
        """Tell whether a job elsewhere waits longer for *host* than any here; it was asked for, and comes or not."""
        return False

    def is_alive(self, node_id: bytes) -> bool:
        """Tell whether a coordinator is alive, this one included."""
        return False

    async def ensure_known(self, node_id: bytes) -> None:
        """Have `is_alive` know of a coordinator that may have just begun.

        Raises:
            Unavailable: it is not known here, and the database is away.
        """

    def cluster_status(self) -> ClusterStatus | None:
        """Tell how it stands with the others; None where there are none."""
        return None
