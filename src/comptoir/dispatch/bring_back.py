"""Bring back: post again, exactly once, what the receipts prove that workers handed in (`dispatch.hand_in`).

One command for some receipts, the oldest first. Of each job the hold is closed, the transfers are posted with the ids
that the receipt states, and the job is ended or written anew; its answer is gone (`jobs.ANSWER_LOST`). A receipt that
is stored already, or a job that the books say otherwise of, changes nothing.
"""

import logging
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import partial

import msgspec

from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.core import Core
from comptoir.events import Events, JobEnded, ReceiptIssued
from comptoir.jobs import (
    JobState,
    StatedAttempt,
    StatedJob,
    job_rows,
    load_states,
    write_stated,
)
from comptoir.kinds import Terms
from comptoir.kit.db import Tx, despite_loss
from comptoir.kit.ids import parse, public
from comptoir.ledger import Book, HoldMismatch, InsufficientCredit, UnknownAccount, account_rows, posted_transfers
from comptoir.receipts import AuthenticatedBy, Predicate, Receipt, Receipts, UnitEntry, payloads_in, predicate_of

log = logging.getLogger(__name__)

TOGETHER_MAX = 64
"""Receipts posted by one command."""


class PostingOutcome(StrEnum):
    """What became of a receipt that was handed in."""

    POSTED = "posted"
    """The books say again what it says."""
    KNOWN = "known"
    """It was stored already, so nothing was written."""
    UNCOVERED = "uncovered"
    """Its buyer's credit does not cover what it charges, so nothing was written."""
    NO_ACCOUNT = "no_account"
    """The buyer or a host that it names has no account, since that was lost as well; nothing was written."""
    CONTRADICTED = "contradicted"
    """The books say otherwise of its job, so nothing was written."""
    UNDER_WAY = "under_way"
    """The job is under way in this process, which has to be restarted first; nothing was written."""


class BroughtBack(msgspec.Struct, frozen=True):
    """What became of one receipt."""

    job_id: bytes
    outcome: PostingOutcome
    why: str = ""
    """For a person; empty when it is posted."""
    missing_uusd: int = 0
    """How much credit its buyer lacks."""


class _Item(msgspec.Struct, frozen=True):
    """One receipt, and what it says in our own terms."""

    receipt: Receipt
    job: StatedJob
    pays: tuple[tuple[bytes, int, str], ...]
    transfer_ids: tuple[bytes, ...]
    own_money: bool


class _Posted(msgspec.Struct, frozen=True):
    """What a command did."""

    found: list[BroughtBack]
    ends: list[JobEnded]
    credit: dict[bytes, tuple[int, int]]
    """Free credit of the buyers, and the promotional part of their balances."""


async def bring_back(core: Core, receipts: Sequence[Receipt]) -> list[BroughtBack]:
    """Post what *receipts* say, which were verified (`receipts.verify_own`); return what became of each.

    Idempotent, also after a crash: each is posted by its job's id and its transfers' ids, at most `TOGETHER_MAX` in one
    command. In the given order, so pass them oldest first.

    Raises:
        Unavailable: the database is; what was posted before stays.
    """
    found: list[BroughtBack] = []
    for first in range(0, len(receipts), TOGETHER_MAX):
        found += await _post(core, receipts[first : first + TOGETHER_MAX])
    return found


async def _post(core: Core, receipts: Sequence[Receipt]) -> list[BroughtBack]:
    found: list[BroughtBack] = []
    items: list[_Item] = []
    for receipt in receipts:
        live = core.jobs.live.seen(receipt.job_id)
        item = _item(core, receipt)
        if live is not None and not live.over:
            why = "the job is under way in this process: restart the coordinator, and bring it back then"
            found.append(BroughtBack(receipt.job_id, PostingOutcome.UNDER_WAY, why))
        elif isinstance(item, BroughtBack):
            found.append(item)
        else:
            items.append(item)
    if not items:
        return found
    accounts = {account for item in items for account in _accounts(item)}
    locks = [account_rows(accounts), job_rows([item.job.id for item in items])]
    with despite_loss():
        posted = await core.db.run(partial(_command, items=items), locks=locks)
    written = {each.job_id for each in posted.found if each.outcome is PostingOutcome.POSTED}
    for item in items:
        if item.job.id in written:
            core.receipts.remember(item.receipt)
    for owner_id, (free_uusd, promo_uusd) in posted.credit.items():
        core.state(Buyers).note_credit(owner_id, free_uusd, promo_uusd)
    for ended in posted.ends:
        core.events.publish(ended)
        core.events.publish(ReceiptIssued(ended.owner_id, ended.at_ms, ended.job_id))
    return found + posted.found


def _accounts(item: _Item) -> set[bytes]:
    return {item.job.owner_id, *(account for account, _, _ in item.pays)}


def _command(tx: Tx, items: Sequence[_Item]) -> _Posted:
    """Post *items* in their order: load, decide on each, apply all."""
    ids = [item.job.id for item in items]
    book = Book.load(tx, set().union(*map(_accounts, items)), ids)
    jobs = load_states(tx, ids)
    stored = payloads_in(tx, ids)
    transfers = posted_transfers(tx, [one for item in items for one in item.transfer_ids])
    result = _Posted([], [], {})
    good: list[_Item] = []
    for item in items:
        job = item.job
        refused = _already(item, stored, transfers)
        if refused is not None:
            result.found.append(refused)
            continue
        try:
            book.settle_as_stated(
                job_id=job.id, payer=job.owner_id, held_uusd=job.terms.hold_uusd, pays=item.pays,
                transfer_ids=item.transfer_ids, at_ms=job.finished_ms, own_money=item.own_money,
            )  # fmt: skip
        except InsufficientCredit as short:
            result.found.append(_uncovered(job, short))
            continue
        except (HoldMismatch, UnknownAccount) as refusal:
            outcome = PostingOutcome.CONTRADICTED if isinstance(refusal, HoldMismatch) else PostingOutcome.NO_ACCOUNT
            result.found.append(BroughtBack(job.id, outcome, refusal.message))
            continue
        good.append(item)
        number = book.number(job.owner_id)
        result.ends.append(JobEnded(job.owner_id, job.finished_ms, number, job.id, job.state, job.cost_uusd))
        result.found.append(BroughtBack(job.id, PostingOutcome.POSTED))
    if good:
        write_stated(tx, [item.job for item in good], stored=jobs.keys())
        result.credit.update({item.job.owner_id: book.credit_uusd(item.job.owner_id) for item in good})
        book.apply(tx)
        Receipts.insert_rows(tx, [item.receipt for item in good])
        Events.insert_rows(tx, result.ends)
    return result


def _already(item: _Item, stored: Mapping[bytes, bytes], transfers: set[bytes]) -> BroughtBack | None:
    job_id = item.job.id
    if stored.get(job_id) == item.receipt.payload:
        return BroughtBack(job_id, PostingOutcome.KNOWN, "it is in the books")
    if job_id in stored:
        return BroughtBack(job_id, PostingOutcome.CONTRADICTED, "the books have another receipt of this job")
    if transfers.intersection(item.transfer_ids):
        return BroughtBack(job_id, PostingOutcome.CONTRADICTED, "the books have some of its transfers, and no receipt")
    return None


def _uncovered(job: StatedJob, short: InsufficientCredit) -> BroughtBack:
    missing_uusd = short.needed_uusd - short.free_uusd
    why = f"its buyer {public('usr', job.owner_id)} has {short.free_uusd} micro-dollars free, and {short.needed_uusd} are due"
    return BroughtBack(job.id, PostingOutcome.UNCOVERED, why, missing_uusd)


# -- what a receipt says, in our own terms -------------------------------------------------------------------------


def _item(core: Core, receipt: Receipt) -> _Item | BroughtBack:
    said = predicate_of(receipt.payload)
    if said.buyer is None:
        return BroughtBack(receipt.job_id, PostingOutcome.NO_ACCOUNT, "it names no buyer")
    rows = said.amounts.transfers
    pays = tuple(
        [
            (core.ledger.own_fees, row.amount_uusd, "fee")
            if row.kind == "fee"
            else (_raw("host", row.payee), row.amount_uusd, "pay")
            for row in rows
        ]
    )
    own_money = any(
        host is not None and not host.takes_promotions(said.model)
        for host in (core.fleet.find(_raw("host", entry.host)) for entry in said.segments)
    )
    transfer_ids = tuple([bytes.fromhex(row.transfer) for row in rows])
    return _Item(receipt, _job(core, receipt.job_id, said, buyer=said.buyer), pays, transfer_ids, own_money)


def _job(core: Core, job_id: bytes, said: Predicate, *, buyer: str) -> StatedJob:
    (into, rate_in), (out, rate_out) = _unit(said.units, once=True), _unit(said.units, once=False)
    most = next((unit.most for unit in said.units if unit.once and unit.most is not None), into)
    last = said.segments[-1] if said.segments else None
    return StatedJob(
        id=job_id,
        owner_id=_raw("usr", buyer),
        dialect=said.dialect,
        kind=said.kind,
        model=said.model,
        state=JobState(said.state),
        terms=Terms(most, out, rate_in, rate_out, said.amounts.held_uusd),
        created_ms=said.times.created_ms,
        started_ms=said.times.started_ms,
        finished_ms=said.times.settled_ms,
        input_count=into,
        output_count=out,
        cost_uusd=said.amounts.charged_uusd,
        finish_reason=last.finish_reason if last is not None else "",
        attempts=_attempts(said),
        node_id=core.node_id,
        staged=core.jobs.kinds.stored(said.kind).staged,
    )


def _attempts(said: Predicate) -> tuple[StatedAttempt, ...]:
    unclaimed = [row for row in said.amounts.transfers if row.kind == "host"]
    found = []
    for entry in said.segments:
        # Nothing is posted for a segment that earned nothing; of several of one host only the sum is certain.
        row = next((row for row in unclaimed if row.payee == entry.host), None)
        if row is not None:
            unclaimed.remove(row)
        (into, rate_in), (out, rate_out) = _unit(entry.units, once=True), _unit(entry.units, once=False)
        found.append(
            StatedAttempt(
                id=_raw("att", entry.attempt),
                host_id=_raw("host", entry.host),
                done=entry.authenticated_by is not AuthenticatedBy.RUNNING_HASH,
                first_frame=entry.first_frame,
                end_frame=entry.end_frame,
                count=out,
                input_count=into,
                paid_uusd=row.amount_uusd if row is not None else 0,
                running_hash=bytes.fromhex(entry.chain),
                signature=entry.signature,
                rate_in=rate_in,
                rate_out=rate_out,
            )
        )
    return tuple(found)


def _unit(units: Sequence[UnitEntry], *, once: bool) -> tuple[int, int]:
    """Return count and rate of what goes in (*once*) or comes out; nothing where it is not counted."""
    return next(((unit.count, unit.rate) for unit in units if unit.once is once), (0, 0))


def _raw(prefix: str, text: str) -> bytes:
    raw = parse(prefix, text)
    assert raw is not None, f"we signed {text!r} as an id"
    return raw
