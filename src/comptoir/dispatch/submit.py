"""Submit: accept a job, set credit aside for it, and give it to a free host in the same command if there is one.

The hold covers every unit that may be counted, of what goes in and of what comes out, at the price of the host that routing
picked (or would pick, if it were free): that price is the cap for the life of the job. Of several stages each has a cap of its
own, and the hold covers them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from comptoir.dispatch.assign import (
    deliver,
    enqueue,
    new_lease,
    reserve_host,
    spec_of,
    spec_of_part,
    start,
    start_of,
)
from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.cancel import tell_host_to_stop
from comptoir.dispatch.core import CommandOrder, Core
from comptoir.dispatch.drain import check_open
from comptoir.dispatch.errors import NoHostPossible, PromptTooLong, QueueFull, TooManyJobs, UnknownModel
from comptoir.dispatch.second_host import drop_hedge
from comptoir.dispatch.waiting_price import waiting_prices
from comptoir.events import JobAccepted
from comptoir.jobs import (
    AttemptState,
    Change,
    JobExists,
    Lease,
    LiveJob,
    NewJob,
    Start,
    insert_jobs,
    job_rows,
    load_states,
)
from comptoir.kinds import Ask, Kind, Part, Resume, Stage, agree, encode_stages
from comptoir.kit.db import Rows, Tx, locking
from comptoir.kit.errors import Refusal
from comptoir.kit.ids import new_id
from comptoir.ledger import Book, account_rows
from comptoir.routing import Candidate, Needs, Spec, encode_needs


class Order(msgspec.Struct, frozen=True):
    """What a dialect asks dispatch to buy."""

    owner_id: bytes
    dialect: str
    kind: str
    """Name of a kind that is sold here (`comptoir.kinds`)."""
    model: str
    """Of several stages: the first."""
    body: bytes
    """As it goes over the link; what is in it, the kind says."""
    output_max: int
    """Most units of the kind's output, over all answers and stages; 0: the output is not paid."""
    detached: bool
    """Whether the job goes on when nobody is connected."""
    job_id: bytes | None = None
    """Chosen before, when an Idempotency-Key names it."""
    answers: int = 1
    """Texts asked for, each with the whole context for itself."""
    input_bytes: int = 0
    """Bytes of *body* that count as text, where images or sound make its size a wrong measure; 0: all of it."""
    stages: tuple[str, ...] = ()
    """What is run one after the other, in order; empty: *model* alone."""
    proof: bool = False
    """The last of them has to prove its result."""
    caller: str = ""
    """Address that asks, where hosts may let in only some; kept with the job."""
    needs: Needs | None = None
    """What it asks of a host and its machine, of that of every stage alike; kept with the job."""


@dataclass(slots=True)
class _SubmitItem:
    job: NewJob
    start: Start | None
    named: bool
    """Whether the job's id was chosen by an Idempotency-Key, so that another request may bring it too."""


async def submit(core: Core, order: Order) -> LiveJob:
    """Accept *order*; the returned job is durable, and either leased to a host or waiting in line.

    Raises, in the order they are checked (nothing is written by any of them):
        Unavailable: the coordinator is draining, or its database is out of reach.
        PromptTooLong: the body is larger than ``prompt_bytes_max``.
        TooManyJobs: the buyer has too many unfinished jobs.
        UnknownKind: the kind is not sold here.
        UnknownModel: no host offers the model.
        NoHostPossible: none of the hosts that offer it could ever run this job.
        QueueFull: it would have to wait and the line is full.
        JobExists: another request with the same Idempotency-Key was faster.
        InsufficientCredit: the buyer's free credit does not cover the hold.
    """
    settings = core.settings
    check_open(core)
    if len(order.body) > settings.prompt_bytes_max:
        raise PromptTooLong(settings.prompt_bytes_max)
    buyers = core.state(Buyers)
    if buyers.in_flight.total(order.owner_id) >= settings.jobs_per_buyer_max:
        raise TooManyJobs(settings.jobs_per_buyer_max)
    job, candidate = _reserve(core, order)
    lease = new_lease(core, job, candidate) if candidate is not None and not candidate.remote else None
    leased = core.jobs.live.lease_to(job, lease) if lease is not None else None
    early = lease is not None and order.job_id is None and _may_start_early(core, job, lease)
    buyers.in_flight.enter(order.owner_id)
    started = start_of(job, lease, node_id=core.node_id, from_id=core.node_id) if lease else None
    item = _SubmitItem(_row(job, core.node_id), started, order.job_id is not None)
    written = core.db.batch(submit_verb, item, turn=CommandOrder.SUBMIT)
    if early and lease is not None:
        core.jobs.live.add(job)
        deliver(core, job, lease)
    try:
        buyers.note_credit(order.owner_id, await written)
    except BaseException:
        _take_back(core, job, leased, early=early)
        raise
    if core.events.heard(JobAccepted):
        core.events.publish(JobAccepted(job.owner_id, job.created_ms, job.id, job.model))
    if not early:
        core.jobs.live.add(job)
        if lease is not None:
            deliver(core, job, lease)
        elif candidate is not None and candidate.remote:
            core.background.spawn(start(core, job, candidate))
        else:
            # Also where its host came here meanwhile: the slots were counted anew, and none is reserved any more.
            assign_or_enqueue(core, job, spec_of(job))
    return job


def _reserve(core: Core, order: Order) -> tuple[LiveJob, Candidate | None]:
    """Return the job, and the free host that was reserved for it, or for its first stage.

    A later stage that no host could run for this caller is refused now, not when those before it have been paid.
    """
    kind = core.jobs.kinds.get(order.kind)
    ask = Ask(order.model, order.body, order.output_max, order.input_bytes, order.answers, order.stages, order.proof)
    parts = kind.parts(ask)
    text_only = bool(core.fleet.text_only_hosts) and kind.text_only(order.body)
    asked = partial(spec_of_part, kind, caller=order.caller, text_only=text_only, needs=order.needs)
    first = asked(parts[0])
    later = [_price_to_wait_for(core, asked(part)) for part in parts[1:]]
    candidate = reserve_host(core, first)
    rates = [_prices(core, first, candidate), *later]
    return _live(core, order, kind, parts=parts, rates=rates), candidate


def _prices(core: Core, spec: Spec, candidate: Candidate | None) -> tuple[int, int]:
    """Return the prices (in, out) that are agreed on: those of the reserved host, or those that the job waits at."""
    if candidate is None:
        return _price_to_wait_for(core, spec)
    return candidate.rate_in, candidate.rate_out


def _may_start_early(core: Core, job: LiveJob, lease: Lease) -> bool:
    """Tell whether a host may begin while the job is still being written.

    The buyer sees nothing before the commit either way, and a crash in between leaves no trace but a lease that the worker
    drops. It saves the commit's time to the first token. Only for buyers whose credit, as last seen, covers the hold:
    nobody gets a host to work by asking without money. Not of a kind that must not run twice: a buyer who is told that it was not
    written asks again.
    """
    if job.kind.resume(job) is Resume.NEVER:
        return False
    host = core.fleet.find(lease.host_id)
    stops = host is not None and host.reach.stops_at_once
    return stops and core.state(Buyers).reserve_cached_credit(job.owner_id, job.terms.hold_uusd)


def _take_back(core: Core, job: LiveJob, leased: Change | None, *, early: bool) -> None:
    """Undo in memory a job that was refused; a host that began already stops and is not paid."""
    core.state(Buyers).in_flight.leave(job.owner_id)
    core.jobs.live.refuse(job)
    drop_hedge(core, job, "the job was refused")
    if early:
        tell_host_to_stop(core, job, "the job was refused")
    lease = job.lease
    if lease is None or leased is None or not leased.undo():
        return
    if not job.closing:  # One that has answered already, and whose end waits for the database, has its slot free.
        core.fleet.release(lease.host_id)
    channel = core.channels.get(lease.host_id)
    if early and channel is not None:
        channel.settled(job, lease, state=AttemptState.FAILED, earned_uusd=0, balance_uusd=0)


def assign_or_enqueue(core: Core, job: LiveJob, spec: Spec) -> None:
    """Put a durably queued job in line, or give it to a host that became free while it was written."""
    candidate = reserve_host(core, spec)
    if candidate is None:
        enqueue(core, job, spec)
    else:
        core.background.spawn(start(core, job, candidate))


def _submit_locks(item: _SubmitItem) -> Rows:
    yield account_rows((item.job.owner_id,))
    if item.named:
        yield job_rows((item.job.id,))


@locking(_submit_locks)
def submit_verb(tx: Tx, items: list[_SubmitItem]) -> list[int | Exception]:
    """Reserve credit and write jobs: load the buyers' accounts, decide each, apply all. Returns the credit left."""
    book = Book.load(tx, [item.job.owner_id for item in items])
    taken = set(load_states(tx, [item.job.id for item in items if item.named]))
    outcomes: list[int | Exception] = []
    jobs: list[NewJob] = []
    starts: list[Start] = []
    for item in items:
        job = item.job
        if job.id in taken:
            outcomes.append(JobExists())
            continue
        try:
            book.hold(payer=job.owner_id, amount_uusd=job.terms.hold_uusd, job_id=job.id)
        except Refusal as refusal:
            outcomes.append(refusal)
            continue
        jobs.append(job)
        taken.add(job.id)
        if item.start is not None:
            starts.append(item.start)
        outcomes.append(book.free_uusd(job.owner_id))
    if jobs:
        insert_jobs(tx, jobs, starts)
        book.apply(tx)
    return outcomes


def _price_to_wait_for(core: Core, spec: Spec) -> tuple[int, int]:
    """Return the prices (in, out) that a job waits at: the median host's, so that half of those possible may take it.

    Raises:
        UnknownModel, NoHostPossible, QueueFull: as `submit`.
    """
    known = core.fleet.free_list(spec.model)
    if known is None or not known.all:
        raise UnknownModel(spec.model, tuple(summary.name for summary in core.fleet.models()))
    if not core.fleet.possible(spec):
        raise NoHostPossible(core.fleet.explain(spec).sentence())
    if len(core.jobs.queue) >= core.settings.queue_jobs_max:
        raise QueueFull(len(core.jobs.queue))
    return waiting_prices(core, spec, known)


def _live(core: Core, order: Order, kind: Kind, *, parts: Sequence[Part], rates: list[tuple[int, int]]) -> LiveJob:
    stages: tuple[Stage, ...] = ()
    if kind.staged:
        stages = tuple([Stage(part.model, rate, part.proof) for part, (_, rate) in zip(parts, rates, strict=True)])
    return LiveJob(
        id=order.job_id or new_id(), owner_id=order.owner_id, dialect=order.dialect, kind=kind, model=order.model,
        body=order.body, terms=agree(parts, rates, output_max=order.output_max), stages=stages, detached=order.detached,
        deadline_ms=core.common_ms() + int(core.settings.job_ttl_s * 1000), created_ms=core.clock.now_ms(),
        submitted_s=core.clock.monotonic_s(), answers=order.answers, caller=order.caller,
        home_id=None if order.detached else core.node_id, needs=encode_needs(order.needs),
    )  # fmt: skip


def _row(job: LiveJob, node_id: bytes) -> NewJob:
    return NewJob(
        job.id, job.owner_id, job.dialect, job.kind.name, job.model, job.body, job.terms, job.detached, job.deadline_ms,
        job.created_ms, node_id, job.home_id, job.caller or None, encode_stages(job.stages), job.needs,
    )  # fmt: skip
