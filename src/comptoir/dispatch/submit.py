"""Submit: accept a job, reserve credit for it, and lease it to a free host in the same command if there is one.

The hold covers every unit of input and output that may be counted, at the price of the host that routing chose (or of
the median host, if none is free). Each of several stages has its own price, and the hold covers them all. Later, a
dearer host may get the job at a new quote (`dispatch.quote`), within bounds that are set here.

A host that takes no promotional credit gets a job only if its buyer's own money covers the hold. What is known of a
buyer's credit when the host is chosen is a guess; the command that writes the hold decides.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import msgspec
from msgspec.structs import replace

from comptoir.blobs import Keeps, UnknownFile, file_rows
from comptoir.dispatch.assign import (
    choose_host,
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
from comptoir.dispatch.errors import (
    CapabilityMissing,
    ContextTooLong,
    HostsAway,
    NoHostPossible,
    PromptTooLong,
    QueueFull,
    TooManyJobs,
    UnknownModel,
)
from comptoir.dispatch.job_files import keeper_of, look_up_inputs
from comptoir.dispatch.on_request import SubmitEvents, ToldOfStarts, number_submit
from comptoir.dispatch.quote import ceilings, dearest
from comptoir.dispatch.second_host import drop_hedge
from comptoir.dispatch.waiting_price import waiting_prices
from comptoir.events import Events, NumberedEvent
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
from comptoir.kinds import Ask, Kind, Part, Resume, Stage, agree, encode_stages, hold_of
from comptoir.kinds.capabilities import NONE
from comptoir.kit.db import Rows, Tx, locking
from comptoir.kit.errors import InvalidField, Refusal
from comptoir.kit.ids import new_id
from comptoir.ledger import Book, InsufficientCredit, OwnMoneyShort, account_rows
from comptoir.moderation import ModelQuarantined
from comptoir.routing import Candidate, Needs, Spec, encode_needs, largest_context


class Order(msgspec.Struct, frozen=True):
    """What a dialect asks dispatch to buy for a buyer."""

    owner_id: bytes
    dialect: str
    kind: str
    """Name of a kind that is sold here (`comptoir.kinds`)."""
    model: str
    """The model; for several stages, that of the first."""
    body: bytes
    """Request body as it is sent over the link; its format is defined by the kind."""
    output_max: int
    """Most units of output, over all answers and stages; 0: the output is not paid for. What it begins with, if
    *open_ended*."""
    detached: bool
    """Whether the job continues when no client is connected."""
    job_id: bytes | None = None
    """Given if an Idempotency-Key determines it."""
    answers: int = 1
    """Number of texts requested, each with the whole context for itself."""
    input_bytes: int = 0
    """Bytes of *body* that count as text, when images or sound make its size a wrong measure; 0: all of it."""
    stages: tuple[str, ...] = ()
    """What runs one after the other, in order; empty: *model* alone."""
    proof: bool = False
    """Whether the last stage has to prove its result."""
    caller: str = ""
    """The caller's IP address, for kinds whose hosts have access rules; stored with the job."""
    needs: Needs | None = None
    """Requirements on the host and its machine, the same for every stage; stored with the job."""
    whole: bool = False
    """Whether the dialect gives the answer whole or not at all: nothing is paid for one that breaks off."""
    open_ended: bool = False
    """Whether its buyer named no bound: bound and hold grow while the answer runs (`dispatch.extend`). Not for kinds
    with stages."""
    inputs: tuple[bytes, ...] | None = None
    """The buyer's files that it names, once `submit` has looked them up."""


SUBMIT_ERRORS = (
    PromptTooLong,
    TooManyJobs,
    ModelQuarantined,
    UnknownModel,
    NoHostPossible,
    HostsAway,
    QueueFull,
    InsufficientCredit,
)
"""What a dialect declares that `submit` may refuse, their subclasses included."""


class _SubmitItem(msgspec.Struct, frozen=True):
    job: NewJob
    start: Start | None
    named: bool
    """Whether an Idempotency-Key determined the job's id, so that another request may have the same."""
    own_money: bool
    """Whether it is to be refused if the buyer's own money does not cover it."""
    inputs: tuple[bytes, ...] | None = None
    """The buyer's files that it needs."""


async def submit(core: Core, order: Order, *, promotional: bool = False) -> LiveJob:
    """Accept *order*; the returned job is durable, and either leased to a host or queued.

    Args:
        promotional: look only at hosts that take promotional credit. If not given, a buyer whose own money does not
            cover the hold at the host chosen among all gets another choice among those.

    Raises, in the order they are checked (nothing is written by any of them):
        Unavailable: this coordinator is draining, or its database is unavailable.
        PromptTooLong: the body is larger than ``prompt_bytes_max``.
        TooManyJobs: the buyer has too many unfinished jobs (TooManyJobBytes: or too large ones).
        QueueBytesFull: all unfinished jobs together are too large.
        UnknownKind: the kind is not sold here.
        InvalidField: an input is not what an order may name (`dispatch.job_files`), or it asks to run for longer than
            ``job_runs_max_s``. FilesExtraMissing: no files are kept here.
        ModelQuarantined: the model's name is in quarantine.
        UnknownModel: no host offers the model.
        NoHostPossible: none of the hosts that offer it could ever run this job (ContextTooLong: it is too long for
            all that otherwise could; CapabilityMissing: they are known not to do what it asks for).
        HostsAway: every host that could has been offline for longer than ``host_away_s``.
        QueueFull: it would have to wait and the queue is full.
        JobExists: another request with the same Idempotency-Key was faster.
        UnknownFile: an input was deleted at the same moment.
        InsufficientCredit: the buyer's free credit does not cover the hold.
    """
    settings = core.settings
    check_open(core)
    if len(order.body) > settings.prompt_bytes_max:
        raise PromptTooLong(settings.prompt_bytes_max)
    buyers = core.state(Buyers)
    if buyers.in_flight.total(order.owner_id) >= settings.jobs_per_buyer_max:
        raise TooManyJobs(settings.jobs_per_buyer_max)
    buyers.check_room(order.owner_id, len(order.body), settings)
    kind = core.jobs.kinds.get(order.kind)
    if kind.files and order.inputs is None:
        # And from the beginning: meanwhile there may be other jobs.
        known = await look_up_inputs(core, kind, owner_id=order.owner_id, body=order.body)
        order = msgspec.structs.replace(order, body=known.body, inputs=known.files)
        return await submit(core, order, promotional=promotional)
    job, candidate, own_money = _reserve(core, order, kind, promotional=promotional)
    lease = new_lease(core, job, candidate) if candidate is not None and not candidate.remote else None
    leased = core.jobs.live.lease_to(job, lease) if lease is not None else None
    early = lease is not None and order.job_id is None and _may_start_early(core, job, lease, own_money=own_money)
    buyers.enter(job)
    started = start_of(job, lease, node_id=core.node_id, from_id=core.node_id) if lease else None
    item = _SubmitItem(_row(job, core.node_id), started, order.job_id is not None, own_money, order.inputs)
    written = core.db.batch(submit_verb, item, turn=CommandOrder.SUBMIT)
    if early and lease is not None:
        core.jobs.live.add(job)
        deliver(core, job, lease)
    try:
        free_uusd, promo_uusd, told = await written
    except BaseException as refusal:
        _take_back(core, job, leased, early=early)
        if isinstance(refusal, OwnMoneyShort):
            return await submit(core, order, promotional=True)
        raise
    buyers.note_credit(order.owner_id, free_uusd, promo_uusd)
    job.note_own_money(free_uusd >= promo_uusd)
    if told is not None:
        core.state(ToldOfStarts).note(job, told.asked)
        for event in told.events:
            core.events.publish(event)
    if not early:
        core.jobs.live.add(job)
        if lease is not None:
            deliver(core, job, lease)
        elif candidate is not None and candidate.remote:
            core.background.spawn(start(core, job, candidate))
        else:
            # Also if its host connected here meanwhile: its slots were recounted, which dropped the reservation.
            assign_or_enqueue(core, job, spec_of(job))
    return job


def _reserve(core: Core, order: Order, kind: Kind, *, promotional: bool) -> tuple[LiveJob, Candidate | None, bool]:
    """Return the job, the free host reserved for it or its first stage, and whether it takes the buyer's own money.

    A buyer whose credit, as last seen, covers the job only with its promotional part gets a host that takes it. If none
    does, the ledger is asked: the buyer may have paid in since.
    """
    job, candidate, spec = _chosen(core, order, kind, promotional=promotional)
    own_money = _takes_own_money(core, job, candidate, spec)
    if own_money and core.state(Buyers).needs_promotions(order.owner_id, job.terms.hold_uusd):
        with suppress(Refusal):
            job, candidate, spec = _chosen(core, order, kind, promotional=True)
            own_money = False
    if candidate is not None:
        core.fleet.reserve(candidate.host_id, candidate.model, prefix_key=spec.prefix_key)
    return job, candidate, own_money


def _takes_own_money(core: Core, job: LiveJob, candidate: Candidate | None, spec: Spec) -> bool:
    """Tell whether a host that runs the job might take no promotional credit: the chosen one, or one not yet known."""
    if spec.promotional or not core.fleet.limited.no_promotions:
        return False
    return candidate is None or candidate.no_promotions or len(job.stages) > 1


def _chosen(core: Core, order: Order, kind: Kind, *, promotional: bool) -> tuple[LiveJob, Candidate | None, Spec]:
    """Return the job, the free host chosen for it or for its first stage, and what was asked of the host.

    A later stage that no host could run for this caller is refused now, not after earlier stages were paid for.
    """
    ask = Ask(order.model, order.body, order.output_max, order.input_bytes, order.answers, order.stages, order.proof)
    parts = kind.parts(ask)
    text_only = bool(core.fleet.limited.text_only) and kind.text_only(order.body)
    capabilities = kind.asks(order.body) if core.fleet.limited.capable else NONE
    asked = partial(
        spec_of_part, kind, caller=order.caller, text_only=text_only, capabilities=capabilities, promotional=promotional,
        needs=order.needs,
    )  # fmt: skip
    first = asked(parts[0])
    later = [_price_to_wait_for(core, asked(part)) for part in parts[1:]]
    candidate, now_s = choose_host(core, first), core.clock.monotonic_s()
    if candidate is not None and not candidate.proven:
        most = dearest(core, first.model, now_s)
        if most is not None and (candidate.rate_in > most[0] or candidate.rate_out > most[1]):
            # Where hosts are proven, their prices are the market's: nobody pays a stranger more because they are busy.
            candidate = choose_host(core, replace(first, price_cap_uusd=hold_of(parts[0], most)))
    rates = [_prices(core, first, candidate), *later]
    return _live(core, order, kind, parts=parts, rates=rates, now_s=now_s), candidate, first


def _prices(core: Core, spec: Spec, candidate: Candidate | None) -> tuple[int, int]:
    """Return the agreed prices (in, out): those of the reserved host, or those at which the job waits."""
    if candidate is None:
        return _price_to_wait_for(core, spec)
    return candidate.rate_in, candidate.rate_out


def _may_start_early(core: Core, job: LiveJob, lease: Lease, *, own_money: bool) -> bool:
    """Tell whether a host may begin while the job is still being written.

    It takes the commit off the time to first token. The buyer sees nothing before the commit either way, and a crash in
    between leaves only a lease that the worker drops. Only for buyers whose credit, as last seen, covers the hold, so
    that nobody can make hosts work without money. Not for a kind that must not run twice: a buyer whose submit was not
    written submits again. Nor for one with files, which a host may ask any coordinator for, and those read what is
    written.
    """
    if job.kind.files or job.kind.resume(job) is Resume.NEVER:
        return False
    buyers, amount_uusd = core.state(Buyers), job.terms.hold_uusd
    if own_money and buyers.needs_promotions(job.owner_id, amount_uusd):
        return False
    host = core.fleet.find(lease.host_id)
    stops = host is not None and host.reach.stops_at_once
    return stops and buyers.reserve_cached_credit(job.owner_id, amount_uusd)


def _take_back(core: Core, job: LiveJob, leased: Change | None, *, early: bool) -> None:
    """Undo a refused job in memory; a host that has already begun is stopped and not paid."""
    core.state(Buyers).leave(job)
    core.jobs.live.refuse(job)
    drop_hedge(core, job, "the job was refused")
    if early:
        tell_host_to_stop(core, job, "the job was refused")
    lease = job.lease
    if lease is None or leased is None or not leased.undo():
        return
    if not job.closing:  # If the host already finished and the end waits for the database, its slot is free.
        core.fleet.release(lease.host_id)
    channel = core.channels.get(lease.host_id)
    if early and channel is not None:
        channel.settled(job, lease, state=AttemptState.FAILED, earned_uusd=0, balance_uusd=0)


def assign_or_enqueue(core: Core, job: LiveJob, spec: Spec) -> None:
    """Enqueue a durably queued job, or give it to a host that became free while it was written."""
    candidate = reserve_host(core, spec)
    if candidate is None:
        enqueue(core, job, spec)
    else:
        core.background.spawn(start(core, job, candidate))


def _submit_locks(item: _SubmitItem) -> Rows:
    yield account_rows((item.job.owner_id,))
    if item.inputs:
        yield file_rows(item.inputs)
    if item.named:
        yield job_rows((item.job.id,))


@locking(_submit_locks)
def submit_verb(tx: Tx, items: list[_SubmitItem]) -> list[tuple[int, int, SubmitEvents | None] | Exception]:
    """Reserve credit and write jobs, and keep their files: load the buyers' accounts, decide on each, apply all.

    Returns the free credit left, the promotional part of the balance (if that is no more, own money covers the hold),
    and what of it the buyer asked to be told.
    """
    book = Book.load(tx, [item.job.owner_id for item in items])
    taken = set(load_states(tx, [item.job.id for item in items if item.named]))
    inputs = [file_id for item in items if item.inputs for file_id in item.inputs]
    keeps = Keeps.load(tx, inputs, items[0].job.created_ms) if inputs else None
    outcomes: list[tuple[int, int, SubmitEvents | None] | Exception] = []
    events: list[NumberedEvent] = []
    jobs: list[NewJob] = []
    starts: list[Start] = []
    for item in items:
        job = item.job
        if job.id in taken:
            outcomes.append(JobExists())
            continue
        if keeps is not None and item.inputs and not keeps.has(job.owner_id, item.inputs):
            outcomes.append(UnknownFile())
            continue
        try:
            book.hold(
                payer=job.owner_id, amount_uusd=job.terms.hold_uusd, job_id=job.id, own_money=item.own_money
            )  # fmt: skip
        except Refusal as refusal:
            outcomes.append(refusal)
            continue
        jobs.append(job)
        taken.add(job.id)
        if keeps is not None and item.inputs:
            keeps.keep(keeper_of(job.id), item.inputs)
        if item.start is not None:
            starts.append(item.start)
        told = number_submit(book, job, item.start)
        if told is not None:
            events += told.events
        outcomes.append((*book.credit_uusd(job.owner_id), told))
    if jobs:
        insert_jobs(tx, jobs, starts)
        book.apply(tx)
        if keeps is not None:
            keeps.apply(tx)
    if events:
        Events.insert_rows(tx, events)
    return outcomes


def _price_to_wait_for(core: Core, spec: Spec) -> tuple[int, int]:
    """Return the prices (in, out) at which a job waits: the median host's, so that half of the possible hosts qualify.

    Raises:
        ModelQuarantined, UnknownModel, NoHostPossible, HostsAway, QueueFull: as `submit`.
    """
    known = core.fleet.free_list(spec.model)
    if known is None or not known.all:
        quarantined = core.moderation.against_model(spec.model)
        if quarantined is not None:
            raise quarantined
        raise UnknownModel(spec.model, tuple(summary.name for summary in core.fleet.models()))
    if not core.fleet.possible(spec):
        if core.fleet.possible(spec, gone=True):
            raise HostsAway(spec.model)
        raise _impossible(core, spec)
    if len(core.jobs.queue) >= core.settings.queue_jobs_max:
        raise QueueFull(len(core.jobs.queue))
    return waiting_prices(core, spec, known)


def _impossible(core: Core, spec: Spec) -> NoHostPossible:
    """Return why no host could ever run this: the capabilities or the context, if one of them is all that is missing,
    else what was counted."""
    if spec.capabilities and core.fleet.possible(replace(spec, capabilities=NONE)):
        fields = core.jobs.kinds.get(spec.kind).capabilities
        missing = [one for one in fields if one in spec.capabilities and not _can(core, spec, one)]
        together = missing or [one for one in fields if one in spec.capabilities]
        return CapabilityMissing(spec.model, tuple(together), field=fields[together[0]])
    known = core.fleet.free_list(spec.model)
    context_tokens = largest_context(replace(spec, context_tokens=0), known.all.values() if known is not None else ())
    if not context_tokens or spec.context_tokens <= context_tokens:
        return NoHostPossible(core.fleet.explain(spec).sentence())
    return ContextTooLong(
        context_tokens=context_tokens,
        input_tokens=spec.input_units,
        output_tokens=spec.context_tokens - spec.input_units,
        field=core.jobs.kinds.get(spec.kind).input_field,
    )


def _can(core: Core, spec: Spec, capability: str) -> bool:
    return core.fleet.possible(replace(spec, capabilities=frozenset((capability,))))


def _lives_s(core: Core, kind: Kind, body: bytes) -> float:
    """Return how long after submit a job ends at the latest, seconds: it may wait as long as any, and run as it asks.

    Raises:
        InvalidField: see `submit`.
    """
    runs_s, most_s = kind.runs_s(body), core.settings.job_runs_max_s
    if runs_s > most_s:
        raise InvalidField("body", f"asks for {runs_s:,.0f} seconds, and a job may run for {most_s:,.0f} here")
    return core.settings.job_ttl_s + runs_s


def _live(
    core: Core, order: Order, kind: Kind, *, parts: Sequence[Part], rates: list[tuple[int, int]], now_s: float
) -> LiveJob:
    grows_by = order.output_max if order.open_ended else 0
    stages: tuple[Stage, ...] = ()
    if kind.staged:
        stages = tuple([Stage(part.model, rate, part.proof) for part, (_, rate) in zip(parts, rates, strict=True)])
    return LiveJob(
        id=order.job_id or new_id(), owner_id=order.owner_id, dialect=order.dialect, kind=kind, model=order.model,
        body=order.body, terms=agree(parts, rates, output_max=order.output_max, grows_by=grows_by), stages=stages,
        detached=order.detached, dearest=dearest(core, order.model, now_s) if grows_by else None,
        deadline_ms=core.common_ms() + int(_lives_s(core, kind, order.body) * 1000), created_ms=core.clock.now_ms(),
        submitted_s=now_s, ceilings=ceilings(core, parts, rates, now_s), answers=order.answers, caller=order.caller,
        home_id=None if order.detached else core.node_id, needs=encode_needs(order.needs), whole=order.whole,
    )  # fmt: skip


def _row(job: LiveJob, node_id: bytes) -> NewJob:
    return NewJob(
        job.id, job.owner_id, job.dialect, job.kind.name, job.model, job.body, job.terms, job.detached, job.deadline_ms,
        job.created_ms, node_id, job.home_id, job.caller or None, encode_stages(job.stages), job.needs,
        int(job.whole) or None,
    )  # fmt: skip
