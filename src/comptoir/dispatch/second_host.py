"""Second hosts: which lease has a second host working beside it, and how to stop one. `dispatch.hedge` starts them."""

import logging
from dataclasses import dataclass, field
from typing import Any

from comptoir.dispatch.core import Core, State
from comptoir.jobs import AttemptState, Lease, LiveJob
from comptoir.kit.errors import Unavailable

log = logging.getLogger(__name__)


@dataclass
class Hedge:
    """A second host working on a job that waits for its first frame (`dispatch.hedge`)."""

    job: LiveJob
    lease: Lease
    winning: bool = False
    """It has delivered, and the job is being transferred to it."""
    waiting: list[Any] = field(default_factory=list)
    """Its messages since then, in order."""


class Hedges(State):
    """All second hosts that are working."""

    def __init__(self, core: Core) -> None:
        self.by_lease: dict[bytes, Hedge] = {}
        """By the id of the lease they work on."""


def drop_hedge(core: Core, job: LiveJob, reason: str) -> None:
    """Stop the second host of *job*, if it has one: it is unpaid, and not at fault."""
    lease = job.end_hedge()
    if lease is None:
        return
    core.state(Hedges).by_lease.pop(lease.id, None)
    core.fleet.release(lease.host_id)
    channel = core.channels.get(lease.host_id)
    if channel is not None:
        channel.cancel(lease, reason)
        channel.settled(job, lease, state=AttemptState.FAILED, earned_uusd=0, balance_uusd=0)
    if not job.refused:
        core.background.spawn(_record_losing_attempt(core, job, lease))


async def _record_losing_attempt(core: Core, job: LiveJob, lease: Lease) -> None:
    try:
        await core.jobs.record_losing_attempt(job.id, lease, at_ms=core.clock.now_ms())
    except Unavailable as outage:
        log.warning("the second host of job %s is not on record: %s", job.id.hex(), outage)
