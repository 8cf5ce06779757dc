"""Settle: end a job exactly once. One command closes the attempt, posts the transfers, writes answer and receipt.

Paid are the units that were delivered, each host's at its own price, never more than the hold (`dispatch.bill`). The
rest of the hold is released in the same command; a job that delivered nothing releases all of it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from comptoir.dispatch.bill import NOTHING, DeliveredPart, HostShare, shares
from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.core import CommandOrder, Core
from comptoir.dispatch.deferred_settlements import DeferredSettlements
from comptoir.dispatch.drain import Shutdown
from comptoir.dispatch.errors import BadSegment
from comptoir.dispatch.extend import with_limit
from comptoir.dispatch.merit import note_answer, note_claim_beyond
from comptoir.dispatch.meters import Meters
from comptoir.dispatch.release_files import receipt_files, release_when_over
from comptoir.dispatch.second_host import drop_hedge
from comptoir.dispatch.unpaid import UnpaidContents
from comptoir.events import Events, JobEnded, ReceiptIssued
from comptoir.jobs import (
    AttemptState,
    Change,
    ClosedSegment,
    Fault,
    FinishRow,
    JobFinished,
    JobMoved,
    JobState,
    Lease,
    LiveJob,
    NotYourLease,
    finish_rows,
    job_rows,
    load_states,
)
from comptoir.kinds import Resume, bought, bounding_bytes
from comptoir.kit.db import Rows, Tx, locking
from comptoir.kit.errors import Refusal, Unavailable
from comptoir.kit.ids import public
from comptoir.kit.signing import is_signed, keyid_of
from comptoir.ledger import Book, account_rows
from comptoir.link import SEGMENT_PAYLOAD_TYPE, Segment, Usage, pae
from comptoir.receipts import Receipt, ReceiptFacts, Receipts, ReceiptTransfer, SegmentFacts, statement_bytes

log = logging.getLogger(__name__)


class Ending(msgspec.Struct, frozen=True):
    """How a job ends."""

    state: JobState
    attempt_state: AttemptState = AttemptState.DONE
    fault: Fault = Fault.NONE
    code: str = ""
    """Machine-readable error code; empty on success."""
    message: str = ""
    status: int = 0
    """HTTP status of the engine's error, passed on if the dialect can."""
    body: bytes = b""
    """The engine's own JSON error."""
    retry_after_s: float = 0.0
    finish_reason: str = ""
    usage: Usage = Usage()
    signature: bytes = b""
    """The host's signature over its segment; verified in the command that settles."""
    unpaid: bool = False
    """The host earns nothing for what it delivered, because it can't or won't vouch for it."""
    free: bool = False
    """The buyer pays nothing, whatever was delivered."""


class _SettleItem(msgspec.Struct, frozen=True):
    """One job's end: an item of the batch verb."""

    finish: FinishRow
    pays: tuple[tuple[bytes, int, str], ...]
    facts: ReceiptFacts
    receipts: Receipts
    owner_id: bytes
    signed: bytes = b""
    """The bytes that the host must have signed, pre-authentication encoded; empty for a host that does not sign."""
    public_key: bytes = b""
    own_money: bool = False
    """Whether one of the hosts takes no promotional credit."""
    claimed_beyond: bool = False
    """Whether the host claims more than it may be paid for, which counts against it."""


class SettleResult(msgspec.Struct, frozen=True):
    """What was written."""

    balances_uusd: dict[bytes, int] = {}
    """Balances of the hosts that were paid."""
    promos_uusd: dict[bytes, int] = {}
    """The promotional part of each of these balances, where there is any."""
    cost_uusd: int = 0
    promo_cost_uusd: int = 0
    """How much of what the job cost was paid from promotional credit; of each pay and the fee the same share."""
    buyer_free_uusd: int = -1
    """The buyer's free credit afterwards; -1 when nothing was written."""
    buyer_promo_uusd: int = 0
    """The promotional part of the buyer's balance afterwards."""
    receipt: Receipt | None = None
    ended: JobEnded | None = None

    def own_money_uusd(self, earned_uusd: int) -> int:
        """Return how much of what a host earned by the job was the buyer's own money."""
        if not self.promo_cost_uusd:
            return earned_uusd
        return earned_uusd * (self.cost_uusd - self.promo_cost_uusd) // self.cost_uusd


async def finish(
    core: Core, job: LiveJob, ending: Ending, *, dishonest: Callable[[BadSegment], Awaitable[None]] | None = None
) -> None:
    """End *job*: when this returns the end is durable, readers are woken, the host is told and its slot is free.

    Idempotent: a second call does nothing.

    Args:
        dishonest: called on a bad signature that is found when the end was deferred and nobody awaits this call.

    Raises:
        BadSegment: the host's signature over what it delivered does not verify; the job stays as it was.
        Unavailable: the database is unavailable. The end is deferred (`dispatch.deferred_settlements`); until it is
            written the slot is free and readers wait. During shutdown it is not deferred, and the job stays as it was.
    """
    while job.quoting is not None:
        await asyncio.shield(job.quoting)  # Whether its hold grew decides what the receipt says was held.
    if job.closing or job.over:
        return
    closing = job.begin_closing()
    core.jobs.queue.remove(job.id)
    if job.hedge is not None:
        drop_hedge(core, job, "the job is over")
    lease, taken = job.lease, core.jobs.live.close_lease(job)
    if lease is not None:
        # The slot is free as soon as the host has stopped, not only when the end is written.
        core.fleet.release(lease.host_id)
    _drop_half_a_stage(job, ending)
    item = _item(core, job, lease, ending)
    await _write(core, job, lease, ending, item=item, undo=(closing, taken), dishonest=dishonest)


def _drop_half_a_stage(job: LiveJob, ending: Ending) -> None:
    """Drop a partial stage if a stage counts whole or not at all, unless the buyer cancelled when it was complete.

    Partial output has not been checked: it may be no valid output, or be counted too high.
    """
    kind = job.kind
    if ending.state is JobState.COMPLETED or kind.resume(job) is not Resume.FROM_STAGE:
        return
    if len(job.frames) == job.segment_start:
        return
    if ending.state is not JobState.CANCELLED or not job.finished_already():
        job.restart(keep=job.segment_start)


async def _write(
    core: Core,
    job: LiveJob,
    lease: Lease | None,
    ending: Ending,
    *,
    item: _SettleItem,
    undo: tuple[Change, Change],
    dishonest: Callable[[BadSegment], Awaitable[None]] | None,
) -> None:
    closing, taken = undo
    try:
        settled = await core.db.batch(settle_verb, item, turn=CommandOrder.SETTLE)
    except JobFinished as stale:
        if job.refused:
            return
        log.error("job %s was already %s in the database", job.id.hex(), stale.state)
        settled = SettleResult()
    except JobMoved:
        core.jobs.live.close_lease(job)
        closing.undo()
        core.peers.moved(job)
        return
    except Exception as error:
        if job.refused:
            return
        if isinstance(error, NotYourLease) and lease is None and job.lease is not None:
            # An attempt was being closed and was not after all (`dispatch.assign.requeue`): it ends with the job.
            closing.undo()
            await finish(core, job, ending, dishonest=dishonest)
            return
        # Also while the end is deferred: a worker that reconnects with the lease must not be told that it is unknown.
        taken.undo()
        again = partial(_write_later, core, job, lease, ending, item=item, undo=undo, dishonest=dishonest)
        if isinstance(error, Unavailable) and core.state(DeferredSettlements).defer(job.id, again):
            raise
        closing.undo()
        if lease is not None and job.lease is lease:
            core.fleet.adopt(lease.host_id)
        raise
    if job.lease is not None:  # Its end had been deferred, and meanwhile the host held it again.
        core.jobs.live.close_lease(job)
    if settled.buyer_free_uusd >= 0:
        core.state(Buyers).note_credit(job.owner_id, settled.buyer_free_uusd, settled.buyer_promo_uusd)
    if settled.receipt is not None:
        core.receipts.remember(settled.receipt)
    _publish(core, job, lease, ending, item=item, settled=settled)
    for attempt_id, earned_uusd in item.finish.earlier:
        _tell_earlier(core, job, attempt_id, earned_uusd=earned_uusd, settled=settled)


async def _write_later(
    core: Core,
    job: LiveJob,
    lease: Lease | None,
    ending: Ending,
    *,
    item: _SettleItem,
    undo: tuple[Change, Change],
    dishonest: Callable[[BadSegment], Awaitable[None]] | None,
) -> None:
    try:
        await _write(core, job, lease, ending, item=item, undo=undo, dishonest=dishonest)
    except BadSegment as bad:
        if dishonest is None:
            raise
        await dishonest(bad)


def _publish(
    core: Core, job: LiveJob, lease: Lease | None, ending: Ending, *, item: _SettleItem, settled: SettleResult
) -> None:
    row = item.finish
    job.end(
        ending.state,
        cost_uusd=row.cost_uusd,
        usage=Usage(row.input_count, row.output_count, row.usage),
        finish_reason=ending.finish_reason,
        fault=ending.fault if ending.state != JobState.COMPLETED else Fault.NONE,
        error_code=ending.code,
        error_message=row.error_message,
        error_status=ending.status,
        error_body=ending.body,
        retry_after_s=ending.retry_after_s,
        host_id=job.host_id,
    )
    core.jobs.live.retire(job)
    core.state(Buyers).leave(job)
    if not row.cost_uusd:
        core.state(UnpaidContents).note(job)
    core.state(Meters).count_end(ending.state, row.at_ms - job.created_ms)
    release_when_over(core, job)
    if lease is not None:
        _tell_host(core, job, lease, ending, item=item, settled=settled)
    if not core.jobs.live.leased:
        core.state(Shutdown).when_empty.set()
    job.wake()
    if settled.ended is not None:
        core.events.publish(settled.ended)
        if core.events.heard(ReceiptIssued):
            core.events.publish(ReceiptIssued(job.owner_id, row.at_ms, job.id))


def _tell_host(
    core: Core, job: LiveJob, lease: Lease, ending: Ending, *, item: _SettleItem, settled: SettleResult
) -> None:
    row = item.finish
    if ending.attempt_state == AttemptState.DONE and not item.claimed_beyond:
        note_answer(core, job, lease, units=row.output_count, paid_uusd=settled.own_money_uusd(row.paid_uusd))
    elif ending.fault == Fault.HOST:
        outcome = "lost" if ending.attempt_state == AttemptState.LOST else "failed"
        core.fleet.outcome(lease.host_id, outcome, buyer=job.owner_id)
    elif item.claimed_beyond:
        note_claim_beyond(core, job, lease)
    channel = core.channels.get(lease.host_id)
    if channel is not None:
        channel.settled(
            job,
            lease,
            state=ending.attempt_state,
            earned_uusd=row.paid_uusd,
            balance_uusd=settled.balances_uusd.get(lease.host_id, 0),
            promo_uusd=settled.promos_uusd.get(lease.host_id, 0),
            receipt=settled.receipt,
        )


def _tell_earlier(core: Core, job: LiveJob, attempt_id: bytes, *, earned_uusd: int, settled: SettleResult) -> None:
    """Tell a host whose lease was revoked, and which was told so then, what its part of the job earned."""
    lease = next(segment.lease for segment in job.segments if segment.lease.id == attempt_id)
    if job.kind.staged and earned_uusd:
        # It counted as answered when its stage was done (`dispatch.advance`); only now is it paid.
        core.fleet.outcome(lease.host_id, "paid", buyer=job.owner_id, paid_uusd=settled.own_money_uusd(earned_uusd))
    channel = core.channels.get(lease.host_id)
    if channel is not None and earned_uusd:
        balance_uusd, promo_uusd = (
            settled.balances_uusd.get(lease.host_id, 0),
            settled.promos_uusd.get(lease.host_id, 0),
        )
        # A closed segment of a staged job is a whole stage, even if its host was lost before it could report the end.
        state = AttemptState.DONE if job.kind.staged else AttemptState.LOST
        channel.settled(
            job, lease, state=state, earned_uusd=earned_uusd, balance_uusd=balance_uusd, promo_uusd=promo_uusd,
            receipt=settled.receipt,
        )  # fmt: skip


def _item(core: Core, job: LiveJob, lease: Lease | None, ending: Ending) -> _SettleItem:
    now = core.clock.now_ms()
    parts = _parts(job, lease, ending)
    last = parts[-1] if lease is not None and parts and parts[-1].lease is lease else None
    usage = ending.usage
    # As the host counts it, as far as it can be believed; charged at most for what the hold covers.
    cores = job.kind.cores(job.body) if job.kind.timed else 0
    most = job.kind.input_countable(job.terms.input_max, last.count, cores) if last is not None else 0
    taken_in = min(usage.prompt_tokens, most)
    bill = [NOTHING] * len(parts)
    if not (ending.free or _is_free(core, job, ending)):
        bill = shares(
            parts,
            input_count=min(taken_in, job.terms.input_max),
            output_max=job.terms.output_max,
            hold_uusd=job.terms.hold_uusd,
            fee_bps=core.settings.fee_bps,
        )
    last_share = bill[-1] if last is not None else NOTHING
    row = FinishRow(
        job_id=job.id, state=ending.state, at_ms=now, event_seq=job.events, attempt_id=lease.id if lease else None,
        attempt_state=ending.attempt_state, host_id=lease.host_id if lease else None, end_frame=len(job.frames),
        input_count=taken_in, output_count=sum([part.count for part in parts]),
        cost_uusd=sum([share.cost_uusd for share in bill]), paid_uusd=last_share.earned_uusd,
        finish_reason=ending.finish_reason, fault=ending.fault, error_code=ending.code,
        error_message=_message(job, ending), running_hash=last.running_hash if last is not None else b"",
        signature=ending.signature, frames=job.encode_frames(), node_id=core.node_id,
        # An engine that continued another host's frames reports details of its own part only.
        usage=with_limit(job, ending.finish_reason, b"" if job.segments else usage.details),
        count=last.count if last is not None else 0, attempt_input_count=taken_in or None,
        earlier=tuple([(segment.lease.id, share.earned_uusd) for segment, share in zip(job.segments, bill, strict=False)]),
    )  # fmt: skip
    signed = public_key = b""
    statement = None
    if lease is not None and ending.signature:
        public_key = core.fleet.get(lease.host_id).row.public_key or b""
        statement = statement_bytes(segment_of(job, lease, ending.finish_reason, usage))
        signed = pae(SEGMENT_PAYLOAD_TYPE, statement)
    facts = _facts(core, job, lease, parts=parts, row=row)
    if last is not None:
        facts.segments[-1] = msgspec.structs.replace(
            facts.segments[-1],
            input_count=taken_in,
            input_claimed=usage.prompt_tokens,
            finish_reason=ending.finish_reason,
            statement=statement,
            keyid=keyid_of(public_key) if statement else None,
            signature=ending.signature or None,
        )
    beyond = last is not None and (usage.prompt_tokens > taken_in or job.claims_beyond(last.claimed))
    own_money = core.fleet.limited.no_promotions > 0 and any(
        host is not None and not host.takes_promotions(part.lease.model)
        for part in parts
        for host in (core.fleet.find(part.lease.host_id),)
    )
    return _SettleItem(
        row, _pays(core, parts, bill), facts, core.receipts, job.owner_id, signed, public_key, own_money, beyond
    )  # fmt: skip


def _message(job: LiveJob, ending: Ending) -> str:
    """Return the ending's message as stored; NUL, which PostgreSQL refuses, becomes the replacement character."""
    return ending.message[: job.kind.message_chars_max].replace("\0", "\N{REPLACEMENT CHARACTER}")


def _is_free(core: Core, job: LiveJob, ending: Ending) -> bool:
    """Tell whether the buyer pays nothing because the answer broke off without anybody cancelling it.

    Always where the answer is given whole: its buyer received nothing, and an SDK asks again by itself.
    """
    if job.whole:
        return ending.state in (JobState.FAILED, JobState.EXPIRED)
    broken = ending.state in (JobState.FAILED, JobState.EXPIRED) and ending.fault != Fault.BUYER
    return broken and not core.settings.charge_for_broken_answers


def _parts(job: LiveJob, lease: Lease | None, ending: Ending) -> list[DeliveredPart]:
    """Return what each host delivered, in frame order; last the part of *lease*, if it has frames or ended the job."""
    half = _is_half(job, ending)
    # A closed segment of a staged job is a whole stage.
    broken = (half and not job.stages) or not job.kind.pays_lost
    parts = [
        DeliveredPart(
            segment.lease, segment.lease.first_frame, segment.end_frame, segment.running_hash, segment.count,
            segment.unpaid or broken, segment.claimed, bounding_bytes(segment.size), segment.passed_ms,
        )
        for segment in job.segments
    ]  # fmt: skip
    if lease is not None and (len(job.frames) > lease.first_frame or ending.state == JobState.COMPLETED):
        claimed = ending.usage.billed(job.segment_claim)
        if ending.state == JobState.CANCELLED:
            claimed = max(claimed, job.kind.used(job.frames[lease.first_frame :]))
        output_bytes = bounding_bytes(job.segment_size)
        count = job.kind.billable(claimed, output_bytes, job.passed_ms)
        part = DeliveredPart(
            lease, lease.first_frame, len(job.frames), job.running_hash, count, ending.unpaid or half, claimed,
            output_bytes, job.passed_ms,
        )  # fmt: skip
        parts.append(part)
    return parts


def _is_half(job: LiveJob, ending: Ending) -> bool:
    """Tell whether the last part of *job* is incomplete and counts whole or not at all, so that it is not billed."""
    if ending.state == JobState.CANCELLED:
        return not job.kind.pays_cancelled and not job.finished_already()
    return not job.kind.pays_half and ending.state != JobState.COMPLETED


def _pays(core: Core, parts: list[DeliveredPart], bill: list[HostShare]) -> tuple[tuple[bytes, int, str], ...]:
    """Return the transfers: one to each host, and one with all their fees to the operator."""
    pays = [(part.lease.host_id, share.earned_uusd, "pay") for part, share in zip(parts, bill, strict=True)]
    return (*pays, (core.ledger.own_fees, sum([share.fee_uusd for share in bill]), "fee")) if pays else ()


def _facts(
    core: Core, job: LiveJob, lease: Lease | None, *, parts: list[DeliveredPart], row: FinishRow
) -> ReceiptFacts:
    timed = job.kind.timed
    segments = [
        SegmentFacts(
            attempt_id=part.lease.id,
            host_id=part.lease.host_id,
            first_frame=part.first_frame,
            end_frame=part.end_frame,
            running_hash=part.running_hash,
            output_count=part.count,
            output_claimed=part.claimed,
            output_bytes=part.output_bytes,
            passed_ms=part.passed_ms if timed else None,
            has_key=part.lease.signs,
            rate_in=part.lease.rate_in,
            rate_out=part.lease.rate_out,
        )
        for part in parts
    ]
    for at, closed in enumerate(job.segments):
        if closed.signature:
            segments[at] = _signed(core, job, closed, segments[at])
    leases = [part.lease for part in parts] or ([lease] if lease is not None else [])
    fee_uusd = row.cost_uusd - row.paid_uusd - sum([earned for _, earned in row.earlier])
    return ReceiptFacts(
        job_id=job.id, buyer_id=job.owner_id, dialect=job.dialect, kind=job.kind.name,
        model=bought(job.model, job.stages), state=row.state, segments=segments,
        input_unit=job.kind.input.name if job.kind.input is not None else "", output_unit=job.kind.output.name,
        input_count=row.input_count, input_max=job.terms.input_max, output_count=row.output_count,
        rate_in=max([each.rate_in for each in leases], default=job.terms.rate_in),
        rate_out=max([each.rate_out for each in leases], default=job.terms.rate_out),
        fee_bps=core.settings.fee_bps,
        held_uusd=job.terms.hold_uusd, charged_uusd=row.cost_uusd, fee_uusd=fee_uusd,
        released_uusd=job.terms.hold_uusd - row.cost_uusd,
        transfers=[], input_sha256=job.body_sha256, created_ms=job.created_ms, settled_ms=row.at_ms,
        started_ms=job.started_ms or None, fingerprint=_fingerprint(core, lease),
        cores=job.kind.cores(job.body) if timed else 0, files=receipt_files(job),
    )  # fmt: skip


def _signed(core: Core, job: LiveJob, closed: ClosedSegment, facts: SegmentFacts) -> SegmentFacts:
    """Return *facts* of a stage with the signature that its host gave when the stage was done.

    If the host has been retired since, its key is no longer here, and the running hash stands for its signature.
    """
    host = core.fleet.find(closed.lease.host_id)
    if host is None or host.row.public_key is None:
        return facts
    segment = Segment(
        job=public("job", job.id),
        attempt=public("att", closed.lease.id),
        host=public("host", closed.lease.host_id),
        model=closed.lease.model,
        input_sha256=job.body_sha256.hex(),
        first_frame=closed.lease.first_frame,
        end_frame=closed.end_frame,
        chain=closed.running_hash.hex(),
        prompt_tokens=0,
        completion_tokens=closed.claimed,
        finish_reason=job.kind.stage_finish,
    )
    return msgspec.structs.replace(
        facts,
        finish_reason=job.kind.stage_finish,
        statement=statement_bytes(segment),
        keyid=keyid_of(host.row.public_key),
        signature=closed.signature,
    )


def _fingerprint(core: Core, lease: Lease | None) -> str:
    host = core.fleet.find(lease.host_id) if lease is not None else None
    if host is None or lease is None:
        return ""
    return next((offer.fingerprint for offer in host.row.models if offer.name == lease.model), "")


def segment_of(job: LiveJob, lease: Lease, finish_reason: str, usage: Usage) -> Segment:
    """Return the statement that the host of *lease* must have signed for what it delivered."""
    return Segment(
        job=public("job", job.id),
        attempt=public("att", lease.id),
        host=public("host", lease.host_id),
        model=lease.model,
        input_sha256=job.body_sha256.hex(),
        first_frame=lease.first_frame,
        end_frame=len(job.frames),
        chain=job.running_hash.hex(),
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.billed(job.segment_claim),
        finish_reason=finish_reason,
    )


def _holds(item: _SettleItem) -> bool:
    """Verify the host's signature (42 us, in the writer thread, where libsodium runs beside the event loop)."""
    return not item.signed or is_signed(item.signed, item.finish.signature, item.public_key)


def _settle_locks(item: _SettleItem) -> Rows:
    return account_rows(_accounts(item)), job_rows((item.finish.job_id,))


def _accounts(item: _SettleItem) -> set[bytes]:
    return {item.owner_id, *(account for account, _, _ in item.pays)}


@locking(_settle_locks)
def settle_verb(tx: Tx, items: list[_SettleItem]) -> list[SettleResult | Exception]:
    """End jobs by compare-and-set on their lease: load, decide on each, apply all."""
    book = Book.load(tx, set().union(*map(_accounts, items)), [item.finish.job_id for item in items])
    states = load_states(tx, [item.finish.job_id for item in items])
    outcomes: list[SettleResult | Exception] = []
    good: list[FinishRow] = []
    receipts: list[Receipt] = []
    ends: list[JobEnded] = []
    for item in items:
        row = item.finish
        stored = states.get(row.job_id)
        if stored is not None and stored.node_id != row.node_id:
            # Also if the job is over: its owner, another coordinator, says how it ended.
            outcomes.append(JobMoved())
            continue
        if stored is None or stored.state not in (JobState.QUEUED, JobState.RUNNING):
            outcomes.append(JobFinished(stored.state if stored else "unknown"))
            continue
        if stored.attempt_id != row.attempt_id:
            outcomes.append(NotYourLease())
            continue
        if not _holds(item):
            outcomes.append(BadSegment("the host's signature does not match what it delivered"))
            continue
        try:
            transfers = book.settle(job_id=row.job_id, pays=item.pays, at_ms=row.at_ms, own_money=item.own_money)
        except Refusal as refusal:
            outcomes.append(refusal)
            continue
        good.append(row)
        receipt = item.receipts.build(_with_transfers(item, transfers))
        receipts.append(receipt)
        balances, promos = _after(book, item)
        number = book.number(item.owner_id)
        ended = JobEnded(item.owner_id, row.at_ms, number, row.job_id, row.state, row.cost_uusd, row.error_code)
        ends.append(ended)
        promo_uusd, credit = book.promo_paid_uusd(row.job_id), book.credit_uusd(item.owner_id)
        outcomes.append(SettleResult(balances, promos, row.cost_uusd, promo_uusd, *credit, receipt, ended))
    if good:
        finish_rows(tx, good)
        book.apply(tx)
        Receipts.insert_rows(tx, receipts)
        Events.insert_rows(tx, ends)
    return outcomes


def _after(book: Book, item: _SettleItem) -> tuple[dict[bytes, int], dict[bytes, int]]:
    """Return the balances of the hosts that *item* paid, and the promotional part of each that has one."""
    both = {account: book.balances_uusd(account) for account, _, kind in item.pays if kind == "pay"}
    promos = {account: promo for account, (_, promo) in both.items() if promo}
    return {account: balance for account, (balance, _) in both.items()}, promos


def _with_transfers(item: _SettleItem, transfers: tuple[bytes, ...]) -> ReceiptFacts:
    """Return the facts with the posted transfers; zero amounts were not posted. The item is not changed: the command
    may run again after a deadlock, or alone because another item of its batch failed."""
    posted = [pay for pay in item.pays if pay[1]]
    copied = []
    for transfer, (account, amount, kind) in zip(transfers, posted, strict=True):
        payee = "fee" if kind == "fee" else public("host", account)
        copied.append(ReceiptTransfer(transfer.hex(), "host" if kind == "pay" else kind, payee, amount))
    return msgspec.structs.replace(item.facts, transfers=copied)
