"""Assign: give jobs to hosts. A free host gets the oldest waiting job it may run; a lost host's job moves on."""

import asyncio
import logging
from functools import partial

import msgspec
from msgspec.structs import replace

from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.core import CommandOrder, Core
from comptoir.dispatch.deferred_settlements import DeferredSettlements, retry_when_db_returns
from comptoir.dispatch.drain import Shutdown
from comptoir.dispatch.endings import nobody_left
from comptoir.dispatch.errors import BadSegment
from comptoir.dispatch.extend import extend_if_due
from comptoir.dispatch.merit import note_claim_beyond
from comptoir.dispatch.newcomers import kept_from_newcomers, note_waiting
from comptoir.dispatch.on_request import AssignedStart, ToldOfStarts, tell_starts
from comptoir.dispatch.quote import QuotedStart, grow_holds, new_quote, price_cap_uusd, quoted_start
from comptoir.dispatch.release_files import drop_lost
from comptoir.dispatch.second_host import drop_hedge
from comptoir.dispatch.settle import Ending, finish
from comptoir.events import JobSent
from comptoir.hosts import AccessRequest
from comptoir.jobs import (
    AttemptState,
    Fault,
    FinishRow,
    JobFinished,
    JobMoved,
    JobState,
    Lease,
    LiveJob,
    NotYourLease,
    Start,
    Waiting,
    job_rows,
    load_states,
    requeue_rows,
    start_rows,
)
from comptoir.kinds import Kind, Part, Resume
from comptoir.kit.db import Rows, Tx, locking
from comptoir.kit.errors import Refusal, Unavailable
from comptoir.kit.ids import new_id
from comptoir.kit.signing import is_signed
from comptoir.ledger import InsufficientCredit, OwnMoneyShort, account_rows
from comptoir.routing import MOST_TRUSTED, Candidate, Needs, Spec, choose, decode_needs, passes

log = logging.getLogger(__name__)

SAME_HOST_AGAIN_S = 0.05
"""Delay before a host that could not be given a job, through no fault of its own, may be given the same job again."""

ATTEMPTS_MAX = 4
"""Hosts that one job is tried on: when four hosts have failed on it, the job is the likelier cause."""


def reserve_host(core: Core, spec: Spec, *, here: bool = False) -> Candidate | None:
    """Choose the best free host for *spec* and reserve one of its slots; None: the job has to wait.

    Args:
        here: look only at hosts of this coordinator.
    """
    if here:
        spec = replace(spec, here=True)
    candidate = choose_host(core, spec)
    if candidate is not None:
        core.fleet.reserve(candidate.host_id, candidate.model, prefix_key=spec.prefix_key)
    return candidate


def choose_host(core: Core, spec: Spec) -> Candidate | None:
    """Choose the best free host for *spec*; None: the job has to wait."""
    free = core.fleet.free_list(spec.model)
    return choose(spec, free, MOST_TRUSTED if spec.judges else core.preference) if free is not None else None


def new_lease(core: Core, job: LiveJob, candidate: Candidate) -> Lease:
    """Return a lease for the reserved host, starting at the job's next frame; it is not open yet."""
    host = core.fleet.get(candidate.host_id)
    return Lease(
        id=new_id(),
        host_id=candidate.host_id,
        model=candidate.model,
        first_frame=len(job.frames),
        hash_before=job.running_hash,
        rate_in=candidate.rate_in,
        rate_out=candidate.rate_out,
        # Of work sold by time a later coordinator asks how long it took.
        started_ms=core.common_ms() if job.kind.timed else core.clock.now_ms(),
        started_s=core.clock.monotonic_s(),
        signs=host.row.public_key is not None,
    )


def deliver(core: Core, job: LiveJob, lease: Lease) -> None:
    """Send a durably leased job through its host's channel.

    If the host has no channel right now but reconnects (`Reach.comes_back`), it keeps the lease and gets the job when
    it is back, within `RELINK_S`. Otherwise the lease is revoked at once, with no fault, and the job moves to another
    host. The same happens while this coordinator drains, because its hosts then reconnect elsewhere and never get the
    job; and for a job that must not run twice, because a host that returns without it can't prove that it never had it.
    """
    if job.closing or job.lease is not lease:
        return
    job.begin_running(lease)
    channel = core.channels.get(lease.host_id)
    if channel is not None and channel.send_job(job, lease):
        if job.growth is not None:
            extend_if_due(core, job)  # The host before it may have come close to the bound.
        if core.events.heard(JobSent):
            core.events.publish(JobSent(job.id, lease.id))
        return
    host = core.fleet.find(lease.host_id)
    gone = host is None or not host.reach.comes_back or core.state(Shutdown).draining
    if gone or job.kind.resume(job) is Resume.NEVER:
        why = "the connection to the host was gone"
        lost = partial(revoke_lease, core, job, lease, why, fault=Fault.NONE, reached=False)
        core.background.spawn(retry_when_db_returns(core, job, lost))


async def start(core: Core, job: LiveJob, candidate: Candidate) -> None:
    """Lease a queued job to a reserved host: write the lease, then send the job. Offer it if the host is remote."""
    if candidate.remote:
        if not core.peers.offer(job, candidate):
            wait_here(core, job)
        return
    if not job.may_be_leased:
        core.fleet.release(candidate.host_id)
        return
    try:
        lease = await lease_on(core, job, candidate, from_id=core.node_id)
    except JobMoved:
        core.peers.moved(job)
    except JobFinished as refusal:
        log.warning("job %s could not be leased: %s", job.id.hex(), refusal)
    except InsufficientCredit as short:
        await keep_price(core, job, short)
    except Refusal as refusal:
        log.warning("job %s could not be leased: %s", job.id.hex(), refusal)
        if job.lease is None and not job.closing and job.id not in core.jobs.queue:
            enqueue(core, job, spec_now(core, job), first=True)
    else:
        deliver(core, job, lease)


async def keep_price(core: Core, job: LiveJob, short: InsufficientCredit) -> None:
    """Have a job whose buyer can't pay a new quote wait for hosts that it can pay; without any, it ends."""
    if isinstance(short, OwnMoneyShort):
        job.note_own_money(False)
    else:
        job.may_cost(())
    if job.closing or job.over or job.owner_node or job.lease is not None or job.id in core.jobs.queue:
        return
    if core.fleet.possible(spec_of(job)):
        wait_here(core, job)
        return
    why = f"the hosts that are left cost more than the {job.terms.hold_uusd} micro-dollars held, and {short}"
    ending = nobody_left(job, why, fault=Fault.CAPACITY)
    await finish(core, job, msgspec.structs.replace(ending, code="insufficient_credit", status=402))


def wait_here(core: Core, job: LiveJob) -> None:
    """Give a queued job that other coordinators declined to a free host of this one, or enqueue it here."""
    if job.closing or job.over or job.owner_node or job.lease is not None or job.id in core.jobs.queue:
        return
    spec = spec_now(core, job)
    candidate = reserve_host(core, spec, here=True)
    if candidate is not None:
        core.background.spawn(start(core, job, candidate))
    else:
        enqueue(core, job, spec, first=True)


async def lease_on(core: Core, job: LiveJob, candidate: Candidate, *, from_id: bytes) -> Lease:
    """Write a lease on a queued job for a reserved host; the job's owner changes from *from_id* to this coordinator.

    Raises (in each case the slot is released and the job has no lease):
        JobMoved: *from_id* no longer owns it. JobFinished: it is no longer queued. Unavailable: no database.
    """
    lease = new_lease(core, job, candidate)
    await write_lease(core, job, lease, from_id=from_id)
    return lease


async def write_lease(core: Core, job: LiveJob, lease: Lease, *, from_id: bytes) -> None:
    """Open *lease* on a queued job and write it; raises, and undoes the lease, as `lease_on` does.

    If the host costs more than the job is held at, the same command raises the hold (`dispatch.quote`).
    """
    while job.quoting is not None:  # Its bound was about to be raised when the host before was lost.
        await asyncio.shield(job.quoting)
    if not job.may_be_leased:
        core.fleet.release(lease.host_id)
        raise JobFinished(job.state)
    quote = new_quote(job, lease)
    change = core.jobs.live.lease_to(job, lease)
    told = core.state(ToldOfStarts)
    item = start_of(job, lease, node_id=core.node_id, from_id=from_id, buyer_id=told.buyer_of(job))
    if quote is not None:
        job.begin_quote()
        own_money = not core.fleet.get(lease.host_id).takes_promotions(lease.model)
        item = quoted_start(item, quote, owner_id=job.owner_id, own_money=own_money)
    agreed, covered = None, False
    try:
        written = told.publish(await core.db.batch(start_verb, item, turn=CommandOrder.START))
        agreed, covered = quote, written is True
    except Refusal:
        core.state(DeferredSettlements).watch_database()
        if change.undo():
            core.fleet.release(lease.host_id)
        raise
    finally:
        if quote is not None:
            if agreed is not None:
                core.state(Buyers).reserve_cached_credit(job.owner_id, agreed[0].hold_uusd - job.terms.hold_uusd)
            job.end_quote(agreed, own_money=covered)


def start_of(job: LiveJob, lease: Lease, *, node_id: bytes, from_id: bytes, buyer_id: bytes = b"") -> Start:
    """Return the row to write when *lease* begins; its event is the last one counted on *job*."""
    return Start(
        job.id,
        lease.id,
        lease.host_id,
        lease.first_frame,
        lease.started_ms,
        job.events - 1,
        node_id,
        from_id,
        lease.rate_in,
        lease.rate_out,
        buyer_id,
    )


def spec_of(job: LiveJob) -> Spec:
    """Return what a queued job requires of a host; its price cap is its hold, or what it may be held at anew.

    If part of its stage was delivered and has to be kept, only a host that can continue from there qualifies.
    """
    kind, part = job.kind, job.kind.part(job)
    return Spec(
        model=part.model,
        kind=kind.name,
        input_units=part.input_expected,
        output_units=part.output_max,
        context_tokens=part.context_tokens,
        price_cap_uusd=price_cap_uusd(job, part),
        deny=job.tried | job.unable | job.accusers,
        text_only=job.text_only,
        capabilities=kind.asks(job.body),
        promotional=not job.own_money,
        must_continue=job.must_be_continued,
        entry=_entry(kind, part, job.caller),
        needs=decode_needs(job.needs),
    )


def spec_now(core: Core, job: LiveJob) -> Spec:
    """Return what a job requires of its next host: `spec_of`, less newcomers that it may not be tried on any more."""
    return kept_from_newcomers(core, job, spec_of(job))


def spec_of_part(
    kind: Kind,
    part: Part,
    *,
    caller: str,
    text_only: bool,
    capabilities: frozenset[str],
    promotional: bool,
    needs: Needs | None,
) -> Spec:
    """Return what one part of an order requires of a host; there is no price cap yet."""
    return Spec(
        model=part.model,
        kind=kind.name,
        input_units=part.input_expected,
        output_units=part.output_max,
        context_tokens=part.context_tokens,
        needs=needs,
        text_only=text_only,
        capabilities=capabilities,
        promotional=promotional,
        entry=_entry(kind, part, caller),
    )


def _entry(kind: Kind, part: Part, caller: str) -> AccessRequest | None:
    """Return the request that hosts with access rules are asked to admit; None: this kind has no access rules."""
    return AccessRequest(caller, enters=part.enters, proof=part.proof) if kind.asks_entry else None


def enqueue(core: Core, job: LiveJob, spec: Spec, *, first: bool = False) -> None:
    """Put a durably queued job in the queue; if its stream is interrupted, `dispatch.expire` limits the wait.

    A job between two stages has no interrupted stream: the next stage's output has not begun.
    """
    if job.has_partial_stage:
        core.jobs.live.stand_still(job, core.clock.monotonic_s())
    note_waiting(core, job, spec)
    core.jobs.queue.push(job_id=job.id, model=job.model, terms=spec, first=first)


def assign_waiting(core: Core, host_id: bytes) -> None:
    """Give a host the oldest waiting jobs that it may run, until it has no free slot or no such job is left."""
    queue = core.jobs.queue
    if core.db.unavailable or core.db.lost:
        core.state(DeferredSettlements).watch_database()
        return
    while True:
        host = core.fleet.find(host_id)
        if (
            host is None
            or host.slots.free < 1
            or host_id not in core.channels
            or core.peers.waits_for_older(host)
            or not len(queue)
        ):
            return
        candidates = host.candidates

        def accept(entry: Waiting) -> bool:
            assert isinstance(entry.terms, Spec)
            return passes(entry.terms, candidates[entry.model])  # noqa: B023 (called within this iteration only)

        entry = queue.take(candidates, accept)
        if entry is None:
            return
        candidate = candidates[entry.model]
        core.fleet.reserve(host_id, entry.model)
        job = core.jobs.live.get(entry.job_id)
        if job is None or job.closing:
            core.fleet.release(host_id)
            continue
        core.background.spawn(start(core, job, candidate))


def assign_all_waiting(core: Core) -> None:
    """Run `assign_waiting` for every host: the database is available again, and jobs have been waiting for it."""
    for host_id in list(core.channels):
        assign_waiting(core, host_id)


async def revoke_lease(
    core: Core,
    job: LiveJob,
    lease: Lease,
    why: str,
    *,
    fault: Fault,
    ending: Ending | None = None,
    unpaid: bool = False,
    again: bool = False,
    reached: bool = True,
) -> None:
    """Revoke the lease of a host that fell silent or failed; another host continues the job, or the job ends.

    Frames already delivered are kept, and the next host continues after them. A host that is not at fault (the job
    never reached it, or the coordinator restarted) may get the job again later; not one that called the request bad
    (`dispatch.second_opinion`). Idempotent: a closed lease is left alone.

    Args:
        ending: how the job ends if no host can continue it.
        unpaid: the host can't vouch for what it delivered, so it earns nothing.
        again: the host is at fault but may be given the job again (it is back).
        reached: whether the host may have received the job; if not, it can't have begun it.
    """
    if job.lease is not lease or job.closing:
        return
    drop_hedge(core, job, "the job goes to another host")
    blame = job.accuse((lease.host_id,)) if fault is Fault.BUYER else None
    if fault in (Fault.HOST, Fault.CAPACITY):
        blame = job.blame(lease.host_id, again=again)
    log.info("job %s: host %s lost its lease: %s", job.id.hex(), lease.host_id.hex(), why)
    try:
        await _end_or_requeue(core, job, lease, why, fault=fault, ending=ending, unpaid=unpaid, reached=reached)
    except Unavailable:
        # Nothing was written: the lease stays open until the next sweep tries again.
        if blame is not None:
            blame.undo()
        raise
    if job.refused or job.over or job.owner_node:
        return
    spec = spec_now(core, job)
    candidate = reserve_host(core, replace(spec, deny=spec.deny | {lease.host_id}))
    if candidate is not None:
        await start(core, job, candidate)
    elif not job.closing:
        enqueue(core, job, spec, first=True)
        if lease.host_id not in spec.deny:
            # Not at once: with a channel that refuses everything, the job would be reassigned in a tight loop.
            asyncio.get_running_loop().call_later(SAME_HOST_AGAIN_S, assign_waiting, core, lease.host_id)


async def _end_or_requeue(
    core: Core,
    job: LiveJob,
    lease: Lease,
    why: str,
    *,
    fault: Fault,
    ending: Ending | None,
    unpaid: bool,
    reached: bool,
) -> None:
    state = ending.attempt_state if ending is not None else AttemptState.LOST
    reason = "" if unpaid else job.finished_already()
    if reason and not job.on_last_stage:
        await requeue(core, job, lease, why, fault=fault, state=state, unpaid=False)
        job.begin_stage()
        return
    if reason:
        await finish(core, job, Ending(JobState.COMPLETED, attempt_state=state, fault=fault, finish_reason=reason))
        return
    resume = job.kind.resume(job)
    if len(job.frames) > job.segment_start and (resume is Resume.FROM_STAGE or _starts_over(core, job, resume)):
        # A partial stage is no output; the next host gets the stage's input again.
        job.restart(keep=job.segment_start)
        lease.note_frames_at_worker(len(job.frames))  # Frames it had from its previous process are dropped too.
    if (
        (resume is Resume.NEVER and reached)
        or job.finished_already()
        or job.losses >= ATTEMPTS_MAX
        or not core.fleet.possible(spec_of(job))
    ):
        await finish(core, job, ending or nobody_left(job, why, fault=fault or Fault.HOST))
        return
    await requeue(core, job, lease, why, fault=fault, state=state, unpaid=unpaid)


def _starts_over(core: Core, job: LiveJob, resume: Resume) -> bool:
    """Tell whether an answer that is given whole is made again from its beginning, because no host can go on with it.

    Its buyer has seen nothing of it. What the lost host delivered is not part of the answer any more, and not paid.
    """
    if not job.whole or resume is not Resume.FROM_PIECE or job.segments:
        return False
    spec = spec_of(job)
    makes_sense = job.losses < ATTEMPTS_MAX and core.fleet.possible(replace(spec, must_continue=False))
    return makes_sense and not core.fleet.possible(spec)


class SignedStage(msgspec.Struct, frozen=True, gc=False):
    """A host's signed statement about a stage that it completed."""

    signature: bytes
    signed: bytes
    """The bytes that were to be signed: the statement in pre-authentication encoding."""
    public_key: bytes


async def requeue(
    core: Core,
    job: LiveJob,
    lease: Lease,
    why: str,
    *,
    fault: Fault,
    state: AttemptState,
    unpaid: bool,
    delivered: SignedStage | None = None,
) -> None:
    """Close the attempt and put the job back in the queue, durably; what was delivered goes to the journal.

    Args:
        delivered: the host completed its stage; *fault* and *why* do not apply then.

    Raises:
        BadSegment: its signature does not verify; the lease stays open.
        Unavailable: the database is unavailable; the lease stays open until the next sweep tries again.
    """
    live = core.jobs.live
    # The previous process may have shown readers frames that no longer exist.
    restarted = lease.revived and len(job.frames) < (
        lease.frames_at_worker if lease.frames_at_worker >= 0 else len(job.frames) + 1
    )
    beyond = job.claims_beyond(job.segment_claim)
    signature = delivered.signature if delivered is not None else b""
    with live.requeue(job, lease, unpaid=unpaid, signature=signature) as (change, piece):
        item = FinishRow(
            job_id=job.id, state=JobState.QUEUED, at_ms=core.clock.now_ms(), event_seq=job.events - 1, attempt_id=lease.id,
            attempt_state=state, host_id=lease.host_id, end_frame=len(job.frames), input_count=0,
            output_count=0, cost_uusd=0, paid_uusd=0, finish_reason="", fault=fault, error_code="",
            error_message=why[:500], running_hash=job.running_hash if piece and not unpaid else b"",
            signature=signature, frames=piece, usage=b"", node_id=core.node_id, count=job.segments[-1].count if piece else 0,
            first_frame=lease.first_frame, restarts=job.restarts + restarted,
            model=job.model,
        )  # fmt: skip
        try:
            await core.db.batch(requeue_verb, Requeued(item, delivered), turn=CommandOrder.REQUEUE)
        except Refusal as refusal:
            if isinstance(refusal, Unavailable | BadSegment) and change.undo():
                raise
            # Another coordinator owns the job now, or its submit was refused and no row exists.
            core.fleet.release(lease.host_id)
            if isinstance(refusal, JobMoved) and not job.refused:
                core.peers.moved(job)
            elif not (job.refused or job.owner_node):
                raise
            return
    if fault == Fault.HOST:
        outcome = "lost" if state == AttemptState.LOST else "failed"
        core.fleet.outcome(lease.host_id, outcome, buyer=job.owner_id)
    elif beyond:
        note_claim_beyond(core, job, lease)
    drop_lost(core, job, lease)
    if restarted:
        job.restart()
    core.fleet.release(lease.host_id)
    if not live.leased:
        core.state(Shutdown).when_empty.set()  # A drain checks again.
    _tell_host(core, job, lease, state if state is AttemptState.DONE else AttemptState.LOST)


def _tell_host(core: Core, job: LiveJob, lease: Lease, state: AttemptState) -> None:
    """Tell a host to stop and forget the lease; a worker that is never told keeps it until it drains."""
    channel = core.channels.get(lease.host_id)
    if channel is not None:
        channel.settled(job, lease, state=state, earned_uusd=0, balance_uusd=0)


class Requeued(msgspec.Struct, frozen=True, gc=False):
    """One job to be continued by another host: an item of the batch verb."""

    finish: FinishRow
    delivered: SignedStage | None = None


def _start_locks(item: Start) -> Rows:
    if isinstance(item, QuotedStart) or item.buyer_id:
        yield account_rows((item.owner_id if isinstance(item, QuotedStart) else item.buyer_id,))
    yield job_rows((item.job_id,))


def _requeued_lock(item: Requeued) -> Rows:
    return (job_rows((item.finish.job_id,)),)


@locking(_start_locks)
def start_verb(tx: Tx, items: list[Start]) -> list[bool | AssignedStart | Exception | None]:
    """Lease jobs by compare-and-set: only those still queued, so two coordinators never lease the same job.

    Returns None, and for a job at new terms whether its buyer's own money covers them, with the event if one is asked
    for.
    """
    states = load_states(tx, [item.job_id for item in items])
    good: list[Start] = []
    outcomes: list[bool | AssignedStart | Exception | None] = []
    for item in items:
        stored = states.get(item.job_id)
        if stored is None or stored.state != JobState.QUEUED:
            outcomes.append(JobFinished(stored.state if stored else "unknown"))
            continue
        if stored.node_id != item.from_id:
            outcomes.append(JobMoved())
            continue
        good.append(item)
        outcomes.append(None)
    quoted = [item for item in good if isinstance(item, QuotedStart)]
    if quoted:
        grown = grow_holds(tx, quoted)
        good = [item for item in good if not isinstance(grown.get(item.job_id), Exception)]
        outcomes = [
            grown.get(item.job_id) if known is None else known for known, item in zip(outcomes, items, strict=True)
        ]
    if good:
        start_rows(tx, good)
        if any(item.buyer_id for item in good):
            tell_starts(tx, items, outcomes)
    return outcomes


@locking(_requeued_lock)
def requeue_verb(tx: Tx, items: list[Requeued]) -> list[None | Exception]:
    """Requeue jobs by compare-and-set on the lease; an item whose lease is stale is refused and nothing is written."""
    states = load_states(tx, [item.finish.job_id for item in items])
    good: list[FinishRow] = []
    outcomes: list[Exception | None] = []
    for requeued in items:
        item, delivered = requeued.finish, requeued.delivered
        stored = states.get(item.job_id)
        if stored is not None and stored.node_id != item.node_id:
            outcomes.append(JobMoved())
            continue
        if stored is None or stored.state != JobState.RUNNING or stored.attempt_id != item.attempt_id:
            outcomes.append(NotYourLease())
            continue
        if delivered is not None and not is_signed(delivered.signed, delivered.signature, delivered.public_key):
            outcomes.append(BadSegment("the host's signature does not match what it delivered"))
            continue
        good.append(item)
        outcomes.append(None)
    if good:
        requeue_rows(tx, good)
    return outcomes
