"""The model of what must be true after an episode, whatever was killed in it: the books by themselves, and what clients
saw."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from comptoir.kit.db import open_database
from comptoir.receipts import HolderKind, PublishedKey, registry_of, verify
from comptoir.reports import audit
from tests.chaos.books import Violation, check_books, envelope
from tests.chaos.chains import is_chain, tag_of_chain
from tests.chaos.engine import is_frame, wanted_of
from tests.chaos.plan import Order, Plan
from tests.chaos.tables import Record, Tables, read
from tests.chaos.wire import Seen

SERVED_MIN = 0.9
"""Least share of orders that ask for no trouble, and whose clients stay, that no host may fail: nine of twelve hosts
are hostile, and honest ones are killed."""

STAYING = ("follows", "reconnects", "comes-late")

ASKED_MIN = 3
"""Hosts that a job was given to before one host's word may be its end: with so many lost, there may be no other."""

WORDS = {"expired": "failed"}
"""Where Infrintia's word for a state is not ours."""


@dataclass(frozen=True)
class Witness:
    """What those outside know of an episode."""

    plan: Plan
    seen: list[Seen]
    deposited: dict[int, bool]
    """Of each deposit that was sent, whether somebody was told that it is there."""
    accounts: dict[str, int]
    """Of each buyer's account (hex), its number in the plan."""
    hostile: dict[str, str]
    """Of each hostile host (hex), its deed."""


async def check(witness: Witness, database: str) -> list[Violation]:
    """Return everything that is not as it must be; *database* is an address as settings have it."""
    tables = await asyncio.to_thread(read, database)
    found = list(check_books(tables, witness.hostile))
    found += _receipts_verify(tables)
    found += _orders(witness.plan, witness.seen, tables)
    found += _deposits(witness, tables)
    if witness.hostile:
        found += _served(witness, tables)
    db = open_database(database)
    try:
        found += [
            Violation(f"audit: {one.what}", one.subject.removeprefix("job_"), f"{one.recorded}, not {one.recomputed}")
            for one in await audit(db)
        ]
    finally:
        await db.close()
    return found


def _receipts_verify(tables: Tables) -> Iterator[Violation]:
    registry = registry_of([_published(key) for key in tables.rows["signing_keys"]])
    for receipt in tables.rows["receipts"]:
        verdict = verify(envelope(receipt), registry)
        if not verdict.ok:
            yield Violation("receipts verify offline", receipt["job_id"], f"{verdict.reason}: {verdict.detail}")


def _published(key: Record) -> PublishedKey:
    times = (key["valid_from_ms"], key["revoked_ms"])
    return PublishedKey(key["keyid"], key["public_key"], HolderKind(key["holder_kind"]), key["holder"], *times)


def _tag_of(job: Record) -> str:
    """Return the name of the order that a stored job is of."""
    return tag_of_chain(job) if is_chain(job) else wanted_of(bytes(job["body"])).tag


def _orders(plan: Plan, seen: list[Seen], tables: Tables) -> Iterator[Violation]:
    jobs = {job["id"]: job for job in tables.rows["jobs"]}
    bought = Counter(_tag_of(job) for job in jobs.values())
    orders = {order.wanted.tag: order for order in plan.orders}
    for tag, count in bought.items():
        if tag not in orders:
            yield Violation("jobs are orders of somebody", "", f"{tag} is nobody's")
        elif count > 1:
            yield Violation("an order is bought once", "", f"{tag} was bought {count} times ({orders[tag].way})")
    for one in seen:
        order = plan.orders[one.number]
        for problem in one.problems:
            yield Violation(
                "clients see nothing odd",
                one.job.removeprefix("job_"),
                f"order {one.number} ({order.way}, {order.habit}): {problem}",
            )
        job = jobs.get(one.job.removeprefix("job_")) if one.job else None
        if one.accepted and job is None:
            yield Violation(
                "an accepted job is there", one.job.removeprefix("job_"), f"order {one.number} ({order.way})"
            )
        if one.refusal and one.refusal != 503 and not one.job and bought[order.wanted.tag]:
            yield Violation(
                "a refused order buys nothing", "", f"order {one.number} was refused with {one.refusal}, and is there"
            )
        if job is not None:
            yield from _seen_is_recorded(order, one, job, tables)


def _seen_is_recorded(order: Order, one: Seen, job: Record, tables: Tables) -> Iterator[Violation]:
    if _tag_of(job) != order.wanted.tag:
        yield Violation("a job is its order's", job["id"], f"order {one.number} was given {_tag_of(job)}")
        return
    if one.status and one.status != WORDS.get(job["state"], job["state"]):
        yield Violation("a final state stays", job["id"], f"its buyer was told {one.status}, it is {job['state']}")
    if one.ended and job["state"] != "completed":
        yield Violation(
            "only a completed job ends without an error", job["id"], f"its reader saw the end, it is {job['state']}"
        )
    if one.error and job["state"] == "completed":
        yield Violation("a completed job ends without an error", job["id"], f"its reader was told {one.error}")
    if one.told:
        cost, state = float(str(one.told["credits_used"])) * 10_000, job["state"]
        if round(cost) != job["cost_uusd"]:
            yield Violation(
                "the buyer is told what it cost", job["id"], f"told {cost}, it was {job['cost_uusd']} ({state})"
            )
    frames = [frame.text for frame in tables.frames(job["id"])]
    if _was_free_and_forgotten(job, frames):
        yield from _is_its_orders(order, one, job, frames)
        return
    restarts = job["restarts"] or 0
    for piece in one.pieces:
        recorded = frames[piece.number] if piece.number < len(frames) else f"nothing ({len(frames)} frames)"
        if piece.text and recorded != piece.text:
            facts = f"frame {piece.number} was {piece.text!r}, recorded is {recorded!r}"
            yield Violation("a stream is a prefix of the answer", job["id"], facts)
            break
    read = [piece.number for piece in one.pieces]
    last = [len(frames)] if one.ended else []
    for before, after in itertools.pairwise(read + last):
        if any(frames[before + 1 : after]):  # Empty ones have no event.
            yield Violation("a stream is read whole", job["id"], f"{after} came after {before} of {len(frames)}")
            break
    whole = "".join(frames)
    for number, text in enumerate(one.texts):
        last = one.ended and number == len(one.texts) - 1
        if (last and text != whole) or not (whole.startswith(text) or restarts):
            facts = f"read {text[-60:]!r} ({len(text)} characters), recorded {whole[-60:]!r} ({len(whole)})"
            yield Violation("a stream is a prefix of the answer", job["id"], facts)


def _was_free_and_forgotten(job: Record, frames: list[str]) -> bool:
    """A job that was not answered and has no price, though its reader may have seen more of it than is on record.

    Frames of open jobs are in the coordinator's memory and at the worker: when the first dies and the job ends before
    the second is back, nobody has them any more. Nobody pays for them either (docs/chaos.md).
    """
    return job["state"] != "completed" and not job["cost_uusd"] and (not frames or job["fault"] == "coordinator")


def _is_its_orders(order: Order, one: Seen, job: Record, frames: list[str]) -> Iterator[Violation]:
    """What was read has to go on from what is recorded, and beyond that to be the order's own."""
    for piece in one.pieces:
        recorded = frames[piece.number] if piece.number < len(frames) else piece.text
        # Empty frames of a hostile host put what follows further back.
        numbers = range(piece.number + 1)
        is_own = any(is_frame(piece.text, order.wanted.tag, number) for number in numbers)
        if piece.text and (recorded != piece.text or not is_own):
            yield Violation("a stream is the order's own", job["id"], f"frame {piece.number} was {piece.text!r}")
    whole = "".join(frames)
    for text in one.texts:
        if not (whole.startswith(text) or text.startswith(whole) or job["restarts"]):
            yield Violation("a stream is the order's own", job["id"], f"read {text[-60:]!r}, recorded {whole[-60:]!r}")


def _served(witness: Witness, tables: Tables) -> Iterator[Violation]:
    """Whatever hostile hosts do, buyers whose orders ask for no trouble get their answers, and no single host can call
    their requests bad."""
    jobs = {job["id"]: job for job in tables.rows["jobs"]}
    answered = failed = 0
    for one in witness.seen:
        order, job = witness.plan.orders[one.number], jobs.get(one.job.removeprefix("job_"))
        if job is None or order.wanted.trouble == "refuses":
            continue
        asked = {attempt["host_id"] for attempt in tables.of("attempts", job["id"])}
        if job["state"] == "failed" and job["fault"] == "buyer" and len(asked) < ASKED_MIN:
            facts = f"{len(asked)} hosts were asked, and its buyer was told {job['error_code']}"
            yield Violation("one host's word makes no request a bad one", job["id"], facts)
        if not order.wanted.trouble and order.habit in STAYING:
            # What expired, or was lost with its coordinator, is the doing of clocks and kills.
            answered += job["state"] == "completed"
            failed += job["state"] == "failed" and job["fault"] != "coordinator"
    if answered < SERVED_MIN * (answered + failed):
        yield Violation("honest buyers are served", "", f"{failed} failed, {answered} were answered")


def _deposits(witness: Witness, tables: Tables) -> Iterator[Violation]:
    posted = Counter(
        (witness.accounts.get(transfer["credit_id"]), transfer["amount_uusd"])
        for transfer in tables.rows["transfers"]
        if transfer["kind"] == "deposit"
    )
    told = witness.deposited
    for deposit in witness.plan.deposits:
        times = posted.pop((deposit.buyer, deposit.amount_uusd), 0)
        if times > 1 or (told.get(deposit.number) and times != 1) or (deposit.number not in told and times):
            facts = f"deposit {deposit.number} of {deposit.amount_uusd} is there {times} times"
            yield Violation("a deposit is posted once", "", facts)
    for stray, times in posted.items():
        yield Violation("deposits are somebody's", "", f"{stray} is there {times} times")
