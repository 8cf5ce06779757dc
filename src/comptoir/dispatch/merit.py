"""Merit: what an attempt says of its host, beyond what `dispatch.settle` pays for it."""

import logging

from comptoir.dispatch.core import Core
from comptoir.dispatch.second_opinion import count_false_accusers
from comptoir.jobs import Lease, LiveJob
from comptoir.kit.ids import public

log = logging.getLogger(__name__)


def note_answer(core: Core, job: LiveJob, lease: Lease, *, units: int, paid_uusd: int) -> None:
    """Note that the host of *lease* answered; an answer with nothing in it says rather less for it than none.

    Args:
        units: of output, as billed.
        paid_uusd: what the host earned, without promotional credit.
    """
    empty = not units and not paid_uusd and not any(one.text or one.extra for one in job.frames[lease.first_frame :])
    outcome = "empty" if empty else "done"
    core.fleet.outcome(lease.host_id, outcome, buyer=job.owner_id, tokens=units, paid_uusd=paid_uusd)
    if job.accusers and not empty:
        count_false_accusers(core, job, answered_by=lease.host_id)


def note_claim_beyond(core: Core, job: LiveJob, lease: Lease) -> None:
    """Count it as the host's failure that it claimed more than it may be paid for, and say so in the log.

    Not of a lease of work sold by time that another process opened: between two of ours, its time is by wall clocks.
    """
    host = public("host", lease.host_id)
    log.warning("job %s: host %s claimed more than it delivered; the rest is not paid", public("job", job.id), host)
    if not (job.kind.timed and lease.revived):
        core.fleet.outcome(lease.host_id, "failed", buyer=job.owner_id)
