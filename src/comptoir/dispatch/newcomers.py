"""Newcomers: hosts that have not proven themselves never get all attempts of a job, nor do several of one group.

A host is proven by its reputation (`routing/types.py:PROVEN_REPUTATION`). While a proven host could run the job, at
most half of its attempts go to newcomers; and of the newcomers of one owner (without owner, of one block of addresses)
only one is tried. Where nobody else could run it, as on a new post, both bounds are dropped. How many newcomers are
tried at all while proven hosts are free is up to routing (`routing/freelist.py:FreeList.explores`).
"""

from msgspec.structs import replace

from comptoir.dispatch.core import Core, State
from comptoir.jobs import LiveJob
from comptoir.routing import Spec

NEWCOMER_ATTEMPTS_MAX = 2
"""Newcomers that a job is tried on while a proven host could run it: half of `ATTEMPTS_MAX`."""

BOUNDED_MAX = 1_000
"""Waiting jobs per sweep that are checked for whether the hosts left to them could still run them."""


class Bounded(State):
    """Waiting jobs that newcomers are kept from; the oldest first."""

    def __init__(self, core: Core) -> None:
        self.jobs: dict[bytes, None] = {}


def kept_from_newcomers(core: Core, job: LiveJob, spec: Spec) -> Spec:
    """Return *spec* without the newcomers that *job* may not be tried on any more, unless nobody else could run it."""
    asked = job.tried | job.accusers
    if not asked:
        return spec
    known = core.fleet.free_list(spec.model)
    offering = known.all if known is not None else {}
    tried = [offering[host_id] for host_id in asked if host_id in offering]
    newcomers = [candidate for candidate in tried if not candidate.proven]
    attempts = len(newcomers) + len(asked) - len(tried)  # Who no longer offers the model has proven nothing.
    if not attempts:
        return replace(spec, judges=bool(job.accusers))
    spec = replace(spec, judges=bool(job.accusers))
    spread = replace(spec, tried_groups=frozenset([candidate.group for candidate in newcomers]))
    proven = replace(spread, proven=True)
    # Of a newcomer's word that the request is bad, a proven host is the judge.
    doubtful = bool(job.accusers) and not any(offering[h].proven for h in job.accusers if h in offering)
    if (attempts >= NEWCOMER_ATTEMPTS_MAX or doubtful) and core.fleet.possible(proven):
        return proven
    return spread if core.fleet.possible(spread) else spec


def note_waiting(core: Core, job: LiveJob, spec: Spec) -> None:
    """Note that *job* is being queued with *spec*, to be looked at again if that keeps newcomers from it."""
    if spec.proven or spec.tried_groups:
        core.state(Bounded).jobs[job.id] = None


def left_alone(core: Core) -> list[LiveJob]:
    """Return waiting jobs that newcomers were kept from for hosts that are gone, or no longer proven, by now."""
    known, found = core.state(Bounded).jobs, []
    for job_id in list(known)[:BOUNDED_MAX]:
        del known[job_id]
        waiting = core.jobs.queue.find(job_id)
        job = core.jobs.live.get(job_id)
        if waiting is None or job is None:
            continue
        assert isinstance(waiting.terms, Spec)
        if core.fleet.possible(waiting.terms):
            known[job_id] = None
        else:
            found.append(job)
    return found
