"""Extend: raise the bound of an answer whose buyer named none, and the hold with it, while its host goes on.

Such a job begins with what its dialect lets it begin with (`Terms.grows_by`). When half of a step is left, a command
raises bound and hold, as far as the host's context, ``max_tokens_max`` and the buyer's free credit allow; only then is
the host told. A host that was faster waits at the bound. Once no more is covered and the bound is reached, it is told
that too, and ends the answer there with ``length``. So nothing is delivered beyond what is held.

Hosts that can't be told midway (`Reach.hears_midway`) keep the bound that they began with.
"""

import logging

import msgspec

from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.core import CommandOrder, Core
from comptoir.dispatch.deferred_settlements import DeferredSettlements
from comptoir.jobs import (
    BY_CONTEXT,
    BY_CREDIT,
    JobFinished,
    JobMoved,
    JobState,
    Lease,
    LiveJob,
    job_rows,
    load_states,
    requote_rows,
)
from comptoir.kinds import Terms, extended
from comptoir.kit.db import Rows, Tx, locking
from comptoir.kit.errors import Refusal, Unavailable
from comptoir.kit.money import cost_up
from comptoir.ledger import Book, account_rows
from comptoir.link import COUNT_MAX

log = logging.getLogger(__name__)


LIMITED_BY = "limited_by"
"""Field of a usage object that says that credit ended the answer (`BY_CREDIT`), where its buyer named no bound."""


class _Extension(msgspec.Struct, frozen=True, gc=False):
    """A bound to be raised: an item of the batch verb."""

    job_id: bytes
    owner_id: bytes
    node_id: bytes
    terms: Terms
    output_max: int
    """What it is to be raised to, if the buyer's free credit covers that."""
    rates: tuple[int, int]
    """Highest prices (in, out) of the hosts that took part."""
    own_money: bool
    """Whether the host takes no promotional credit."""


def output_limit(core: Core, job: LiveJob, lease: Lease) -> int:
    """Return the most that a bound may grow to at the host of *lease*: its context, for each answer by itself.

    Engines know better how long the prompt is, and end the answer where their context does.
    """
    host = core.fleet.find(lease.host_id)
    candidate = host.candidates.get(lease.model) if host is not None else None
    each = core.settings.max_tokens_max
    if candidate is not None and candidate.context_tokens:
        each = min(each, candidate.context_tokens)
    return min(each * job.answers, COUNT_MAX)


def waits_for_more(core: Core, job: LiveJob, lease: Lease) -> bool:
    """Tell whether the host of *lease* has reached the bound, and waits until it is told of a higher one or of none."""
    return job.grows and job.claim >= job.terms.output_max and _may_be_raised(core, job, lease)


def _may_be_raised(core: Core, job: LiveJob, lease: Lease) -> bool:
    """Tell whether the host of *lease* can be told of a higher bound. A claim beyond what it delivered is no reason."""
    host = core.fleet.find(lease.host_id)
    return host is not None and host.reach.hears_midway and not job.claims_beyond(job.segment_claim)


def extend_if_due(core: Core, job: LiveJob) -> None:
    """Raise the bound of *job* in the background if its answer has come close to it; else do nothing."""
    growth, lease = job.growth, job.lease
    if growth is None or lease is None or not growth.is_due(job.terms, job.claim):
        return
    if job.quoting is not None or job.closing or job.refused or not _may_be_raised(core, job, lease):
        return
    terms = job.terms
    output_max = min(terms.next_max, output_limit(core, job, lease))
    if output_max <= terms.output_max:
        if job.claim >= terms.output_max:
            growth.end(BY_CONTEXT)
            tell_bound(core, job)
        else:
            growth.fell_short(terms)
        return
    if core.db.unavailable:
        _again_later(core, job)
        return
    leases = [lease, *[segment.lease for segment in job.segments]]
    rates = max([each.rate_in for each in leases]), max([each.rate_out for each in leases])
    own_money = not core.fleet.get(lease.host_id).takes_promotions(lease.model)
    job.begin_quote()
    core.background.spawn(
        _extend(core, job, _Extension(job.id, job.owner_id, core.node_id, terms, output_max, rates, own_money))
    )


async def _extend(core: Core, job: LiveJob, item: _Extension) -> None:
    growth, raised, covered = job.growth, None, False
    assert growth is not None, "only a bound that grows is raised"
    try:
        raised, covered = await core.db.batch(extend_verb, item, turn=CommandOrder.EXTEND)
    except Unavailable:
        _again_later(core, job)
        return
    except JobMoved:
        if not job.owner_node:
            core.peers.moved(job)
        return
    except Refusal as refusal:
        log.warning("the bound of job %s could not be raised: %s", job.id.hex(), refusal)
        growth.end(BY_CREDIT)
    finally:
        job.end_quote((raised, job.stages) if raised is not None else None, own_money=covered)
    terms = job.terms
    if raised is not None:
        core.state(Buyers).reserve_cached_credit(job.owner_id, terms.hold_uusd - item.terms.hold_uusd)
        if job.ceilings and growth.dearest is not None:
            rate_in, rate_out = growth.dearest
            job.may_cost((cost_up(terms.input_max * rate_in + terms.output_max * rate_out),))
    elif job.claim >= terms.output_max:
        growth.end(BY_CREDIT)
    if terms.output_max < item.output_max:
        growth.fell_short(terms)
    if raised is not None or growth.ended_by:
        tell_bound(core, job)
    extend_if_due(core, job)


def _again_later(core: Core, job: LiveJob) -> None:
    """Raise the bound when the database is back; until then a host that reaches it waits."""

    async def again() -> None:
        extend_if_due(core, job)

    if not job.closing:  # Its end may be deferred, and replaces this.
        core.state(DeferredSettlements).defer(job.id, again)


def tell_bound(core: Core, job: LiveJob) -> None:
    """Tell the host of *job* the bound as it is now; one whose link is down is told when it is back."""
    lease = job.lease
    if job.growth is None or lease is None or job.closing:
        return
    lease.touch(core.clock.monotonic_s())  # It may have waited for this.
    channel = core.channels.get(lease.host_id)
    if channel is not None:
        channel.raise_bound(job, lease)


def with_limit(job: LiveJob, finish_reason: str, details: bytes) -> bytes:
    """Return an engine's usage object, with `LIMITED_BY` if the buyer's credit ended the answer."""
    if job.growth is None or job.growth.ended_by != BY_CREDIT or finish_reason != "length":
        return details
    fields = msgspec.json.decode(details or b"{}", type=dict[str, msgspec.Raw])
    return msgspec.json.encode(fields | {LIMITED_BY: BY_CREDIT})


def _extend_locks(item: _Extension) -> Rows:
    return account_rows((item.owner_id,)), job_rows((item.job_id,))


@locking(_extend_locks)
def extend_verb(tx: Tx, items: list[_Extension]) -> list[tuple[Terms | None, bool] | Exception]:
    """Raise bounds and holds of unfinished jobs, as far as the free credit of their buyers covers it.

    Returns the new terms, None where no more is covered, and whether the buyer's own money covers the hold.
    """
    states = load_states(tx, [item.job_id for item in items])
    book = Book.load(tx, [item.owner_id for item in items], [item.job_id for item in items])
    outcomes: list[tuple[Terms | None, bool] | Exception] = []
    raised: list[tuple[bytes, Terms, None]] = []
    for item in items:
        stored = states.get(item.job_id)
        if stored is None or stored.state not in (JobState.QUEUED, JobState.RUNNING):
            outcomes.append(JobFinished(stored.state if stored is not None else "unknown"))
            continue
        if stored.node_id != item.node_id:
            outcomes.append(JobMoved())
            continue
        try:
            most_uusd = book.reach_uusd(item.job_id, held_uusd=item.terms.hold_uusd, own_money=item.own_money)
            terms = extended(item.terms, item.rates, output_max=item.output_max, most_uusd=most_uusd)
            if terms.output_max == item.terms.output_max:
                outcomes.append((None, False))
                continue
            covered = book.grow(job_id=item.job_id, amount_uusd=terms.hold_uusd, own_money=item.own_money)
        except Refusal as refusal:
            outcomes.append(refusal)
            continue
        outcomes.append((terms, covered))
        raised.append((item.job_id, terms, None))
    if raised:
        book.apply(tx)
        requote_rows(tx, raised)
    return outcomes
