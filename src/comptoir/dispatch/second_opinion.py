"""Second opinions: a host's word that the request is bad is believed when a host of somebody else says so too.

Otherwise a host that is chosen for its price could turn every buyer away at no cost to itself. Until then the word only
moves the job on, without blame; if the next host answers, it was wrong, and counts as a failure.
"""

from comptoir.dispatch.core import Core
from comptoir.hosts import PROVEN
from comptoir.jobs import LiveJob


def is_believed(core: Core, job: LiveJob, host_id: bytes) -> bool:
    """Tell whether *host_id*, which calls the request of *job* bad, is not the first to do so.

    Two hosts of one owner are one; hosts without owner are each their own.
    """
    owner_id = _owner(core, host_id)
    return any(owner_id is None or _owner(core, other) != owner_id for other in job.accusers)


def note_agreement(core: Core, job: LiveJob, host_id: bytes) -> None:
    """Note a doubt against each host that called the request bad, now that *host_id* has said so too.

    Little enough for hosts that get a bad request now and then; those that refuse all they get, and agree with each
    other, are distrusted in the end.
    """
    for each in {*job.accusers, host_id}:
        core.fleet.outcome(each, "doubted", buyer=job.owner_id)


def count_false_accusers(core: Core, job: LiveJob, *, answered_by: bytes) -> None:
    """Count a failure for each host that called the request bad which *answered_by* has answered.

    A host that is proven isn't judged by one that is not: whoever answers anything could ruin it.
    """
    judge_is_proven = _standing(core, answered_by) >= PROVEN
    for host_id in job.accusers:
        if judge_is_proven or _standing(core, host_id) < PROVEN:
            core.fleet.outcome(host_id, "failed", buyer=job.owner_id)


def _owner(core: Core, host_id: bytes) -> bytes | None:
    host = core.fleet.find(host_id)
    return host.row.owner_id if host is not None else None


def _standing(core: Core, host_id: bytes) -> float:
    host = core.fleet.find(host_id)
    return host.published_reputation if host is not None else 0.0
