"""Submit: accept a job, set credit aside for it, and give it to a free host in the same command if there is one.

The hold covers the whole prompt and every token that may come, at the price of the host that routing picked (or would
pick, if it were free): that price is the cap for the life of the job. Of a chain of containers each has a cap of its own, and the
hold covers them all.
"""

from dataclasses import dataclass

import msgspec

from comptoir.dispatch.assign import (
    PROMPT_TOKENS_BASE,
    give,
    line_up,
    new_lease,
    prompt_tokens_expected,
    spec_of,
    start,
    start_of,
    take,
)
from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.cancel import tell_host_to_stop
from comptoir.dispatch.drain import check_open
from comptoir.dispatch.errors import NoHostPossible, PromptTooLong, QueueFull, TooManyJobs, UnknownModel
from comptoir.dispatch.house import House, Turn
from comptoir.dispatch.plain import is_plain
from comptoir.dispatch.second_host import drop_hedge
from comptoir.dispatch.waiting_price import waiting_prices
from comptoir.hosts import Entry
from comptoir.jobs import (
    AttemptState,
    Change,
    JobExists,
    Lease,
    LiveJob,
    NewJob,
    Start,
    Step,
    encode_steps,
    insert_jobs,
    job_rows,
    load_states,
)
from comptoir.kit.db import Rows, Tx, locking
from comptoir.kit.errors import Refusal
from comptoir.kit.ids import new_id
from comptoir.kit.money import cost_up
from comptoir.ledger import Book, account_rows
from comptoir.link import CONTAINER
from comptoir.routing import Candidate, Spec

PROMPT_BYTES_PER_TOKEN = 3
"""Bytes of request body counted as one prompt token for the hold: ordinary text has about four. A prompt with more tokens
than that is charged for no more than its hold."""


class Order(msgspec.Struct, frozen=True):
    """What a dialect asks the street to buy."""

    owner_id: bytes
    dialect: str
    kind: str
    """``chat``, ``completion``, ``embedding`` or ``container``."""
    model: str
    """Of a chain: its first container."""
    body: bytes
    """OpenAI-style request body; for containers `comptoir.link.ContainerRun`."""
    max_tokens: int
    """Most tokens of the answer, over all its choices; 0 for embeddings. Of a chain: how many containers it has."""
    detached: bool
    """Whether the job goes on when nobody is connected."""
    job_id: bytes | None = None
    """Chosen before, when an Idempotency-Key names it."""
    answers: int = 1
    """Texts asked for, each with the whole context for itself."""
    prompt_bytes: int = 0
    """Bytes of *body* that weigh like text, where images or sound make the body itself a wrong measure; 0: all of it."""
    containers: tuple[str, ...] = ()
    """The chain, in order; empty: one model."""
    proof: bool = False
    """The last of them has to prove its result."""
    caller: str = ""
    """Address that asks, for containers, whose hosts may let in only some; kept with the job."""


@dataclass(slots=True)
class _Item:
    job: NewJob
    start: Start | None
    named: bool
    """Whether the job's id was chosen by an Idempotency-Key, so that another request may bring it too."""


async def submit(house: House, order: Order) -> LiveJob:
    """Accept *order*; the returned job is durable, and either leased to a host or waiting in line.

    Raises, in the order they are checked (nothing is written by any of them):
        Unavailable: the house is draining, or its database is out of reach.
        PromptTooLong: the body is larger than ``prompt_bytes_max``.
        TooManyJobs: the buyer has too many unfinished jobs.
        UnknownModel: no host offers the model.
        NoHostPossible: none of the hosts that offer it could ever run this job.
        QueueFull: it would have to wait and the line is full.
        JobExists: another request with the same Idempotency-Key was faster.
        InsufficientCredit: the buyer's free credit does not cover the hold.
    """
    settings = house.settings
    check_open(house)
    if len(order.body) > settings.prompt_bytes_max:
        raise PromptTooLong(settings.prompt_bytes_max)
    buyers = house.state(Buyers)
    if buyers.in_flight.total(order.owner_id) >= settings.jobs_per_buyer_max:
        raise TooManyJobs(settings.jobs_per_buyer_max)
    job, candidate = _chain(house, order) if order.containers else _one(house, order)
    lease = new_lease(house, job, candidate) if candidate is not None and not candidate.away else None
    leased = house.jobs.live.lease_to(job, lease) if lease is not None else None
    early = lease is not None and order.job_id is None and _may_start_early(house, job, lease)
    buyers.in_flight.enter(order.owner_id)
    item = _Item(
        _row(job, house.node_id), _start(job, lease, house.node_id) if lease else None, order.job_id is not None
    )
    written = house.db.batch(submit_verb, item, turn=Turn.SUBMIT)
    if early and lease is not None:
        house.jobs.live.add(job)
        give(house, job, lease)
    try:
        buyers.note_credit(order.owner_id, await written)
    except BaseException:
        _take_back(house, job, leased, early=early)
        raise
    if not early:
        house.jobs.live.add(job)
        if lease is not None:
            give(house, job, lease)
        elif candidate is not None:
            house.background.spawn(start(house, job, candidate))
        else:
            queue_up(house, job, spec_of(job))
    return job


def _one(house: House, order: Order) -> tuple[LiveJob, Candidate | None]:
    """Return the job for one model, and the free host that was reserved for it."""
    prompt_bytes = order.prompt_bytes or len(order.body)
    prompt_tokens = prompt_bytes // PROMPT_BYTES_PER_TOKEN + PROMPT_TOKENS_BASE
    spec = Spec(
        model=order.model, kind=order.kind, prompt_tokens=prompt_tokens_expected(prompt_tokens),
        max_tokens=order.max_tokens, answers=order.answers, plain=not house.fleet.plain_hosts or is_plain(order.body),
    )  # fmt: skip
    candidate = take(house, spec)
    price_in, price_out = _prices(house, spec, candidate)
    hold = hold_for(
        prompt_tokens=prompt_tokens, max_tokens=order.max_tokens, price_in=price_in, price_out=price_out
    )  # fmt: skip
    job = _live(house, order, prompt_tokens=prompt_tokens, price_in=price_in, price_out=price_out, hold=hold)
    return job, candidate


def _chain(house: House, order: Order) -> tuple[LiveJob, Candidate | None]:
    """Return the job for a chain of containers, and the free host that was reserved for the first of them.

    A container that no host could run for this caller is refused now, not when the others before it have been paid.
    """
    last = len(order.containers) - 1
    proofs = [order.proof and at == last for at in range(last + 1)]
    first, *rest = [
        Spec(model=model, kind=CONTAINER, max_tokens=1, entry=Entry(order.caller, enters=at == 0, proof=proofs[at]))
        for at, model in enumerate(order.containers)
    ]
    later = [_price_to_wait_for(house, spec)[1] for spec in rest]
    candidate = take(house, first)
    caps = [_prices(house, first, candidate)[1], *later]
    hold = sum([cost_up(cap) for cap in caps])
    job = _live(house, order, prompt_tokens=0, price_in=0, price_out=max(caps), hold=hold)
    job.steps = tuple([Step(*each) for each in zip(order.containers, caps, proofs, strict=True)])
    return job, candidate


def _prices(house: House, spec: Spec, candidate: Candidate | None) -> tuple[int, int]:
    """Return the prices (in, out) that are agreed on: those of the reserved host, or those that the job waits at."""
    if candidate is None:
        return _price_to_wait_for(house, spec)
    return candidate.price_in_uusd_per_mtok, candidate.price_out_uusd_per_mtok


def _may_start_early(house: House, job: LiveJob, lease: Lease) -> bool:
    """Tell whether a host may begin while the job is still being written.

    The buyer sees nothing before the commit either way, and a crash in between leaves no trace but a lease that the worker
    drops. It saves the commit's time to the first token. Only for buyers whose credit, as last seen, covers the hold:
    nobody gets a host to work by asking without money.
    """
    host = house.fleet.find(lease.host_id)
    stops = host is not None and host.reach.stops_at_once
    return stops and house.state(Buyers).spend_seen_credit(job.owner_id, job.hold_uusd)


def _take_back(house: House, job: LiveJob, leased: Change | None, *, early: bool) -> None:
    """Undo in memory a job that was refused; a host that began already stops and is not paid."""
    house.state(Buyers).in_flight.leave(job.owner_id)
    house.jobs.live.refuse(job)
    drop_hedge(house, job, "the job was refused")
    if early:
        tell_host_to_stop(house, job, "the job was refused")
    lease = job.lease
    if lease is None or leased is None or not leased.undo():
        return
    if not job.closing:  # One that has answered already, and whose end waits for the database, has its slot free.
        house.fleet.release(lease.host_id)
    line = house.lines.get(lease.host_id)
    if early and line is not None:
        line.settled(job, lease, state=AttemptState.FAILED, earned_uusd=0, balance_uusd=0)


def queue_up(house: House, job: LiveJob, spec: Spec) -> None:
    """Put a durably queued job in line, or give it to a host that became free while it was written."""
    candidate = take(house, spec)
    if candidate is None:
        line_up(house, job, spec)
    else:
        house.background.spawn(start(house, job, candidate))


def _submit_locks(item: _Item) -> Rows:
    yield account_rows((item.job.owner_id,))
    if item.named:
        yield job_rows((item.job.id,))


@locking(_submit_locks)
def submit_verb(tx: Tx, items: list[_Item]) -> list[int | Exception]:
    """Set aside credit and write jobs: load the buyers' accounts, decide each, apply all. Gives the credit that is left."""
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
            book.hold(payer=job.owner_id, amount_uusd=job.hold_uusd, job_id=job.id)
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


def hold_for(*, prompt_tokens: int, max_tokens: int, price_in: int, price_out: int) -> int:
    """Return the micro-dollars that cover a job at these prices, rounded up once."""
    return cost_up(prompt_tokens * price_in + max_tokens * price_out)


def _price_to_wait_for(house: House, spec: Spec) -> tuple[int, int]:
    """Return the prices (in, out) that a job waits at: the median host's, so that half of those possible may take it.

    Raises:
        UnknownModel, NoHostPossible, QueueFull: as `submit`.
    """
    known = house.fleet.free_list(spec.model)
    if known is None or not known.all:
        raise UnknownModel(spec.model, tuple(summary.name for summary in house.fleet.models()))
    if not house.fleet.possible(spec):
        raise NoHostPossible(house.fleet.explain(spec).sentence())
    if len(house.jobs.queue) >= house.settings.queue_jobs_max:
        raise QueueFull(len(house.jobs.queue))
    return waiting_prices(house, spec, known)


def _live(house: House, order: Order, *, prompt_tokens: int, price_in: int, price_out: int, hold: int) -> LiveJob:
    now = house.clock.now_ms()
    job = LiveJob(
        id=order.job_id or new_id(), owner_id=order.owner_id, dialect=order.dialect, kind=order.kind, model=order.model,
        body=order.body, max_tokens=order.max_tokens, prompt_tokens_max=prompt_tokens, price_in=price_in,
        price_out=price_out, hold_uusd=hold, detached=order.detached,
        deadline_ms=house.common_ms() + int(house.settings.job_ttl_s * 1000), created_ms=now, submitted_s=house.clock.monotonic_s(),
    )  # fmt: skip
    job.answers = order.answers
    job.caller = order.caller
    job.home_id = None if order.detached else house.node_id
    return job


def _row(job: LiveJob, node_id: bytes) -> NewJob:
    return NewJob(
        job.id, job.owner_id, job.dialect, job.kind, job.model, job.body, job.prompt_tokens_max, job.max_tokens,
        job.price_in, job.price_out, job.hold_uusd, job.detached, job.deadline_ms, job.created_ms, node_id, job.home_id,
        job.caller or None, encode_steps(job.steps),
    )  # fmt: skip


def _start(job: LiveJob, lease: Lease, node_id: bytes) -> Start:
    return start_of(job, lease, node_id=node_id, from_id=node_id)
