"""What must be true of the rows alone: money, states, attempts, receipts, all recomputed here from the tables."""

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from tests.chaos.chains import is_chain, wrong_outputs
from tests.chaos.engine import PROMPT_TOKENS, is_frame, wanted_of
from tests.chaos.tables import Record, Tables

FINAL = frozenset(("completed", "failed", "cancelled", "expired"))
NEXT = {
    "": {"queued"},
    "queued": {"running", *FINAL},
    "running": {"queued", "running", *FINAL},
}
"""What may follow a state in `job_events`."""

MAY_BE_NEGATIVE = ("payments_in", "promotions")
MTOK = 1_000_000
UNSEEN_TOKENS = 32
"""What an engine may count beyond the bytes that it delivers (docs/money.md)."""
RECEIPT_TYPE = b"application/vnd.in-toto+json"


@dataclass(frozen=True)
class Violation:
    """One thing that must be true and is not."""

    rule: str
    job: str
    """Hex id of the job; empty when it is about no single one."""
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {'job_' + self.job + ': ' if self.job else ''}{self.detail}"


def check_books(tables: Tables, hostile: Mapping[str, str]) -> Iterator[Violation]:
    """Yield everything in the rows that is not as it must be when all jobs are over; *hostile* names the hostile hosts'
    deeds by id."""
    yield from _accounts(tables)
    for job in tables.rows["jobs"]:
        yield from _states(tables, job)
        yield from _hold(tables, job)
        yield from _attempts(tables, job, hostile)
        yield from _answer(tables, job, hostile)
        yield from _receipt(tables, job)
    known = {job["id"] for job in tables.rows["jobs"]}
    for name in ("holds", "attempts", "job_events", "answers", "receipts"):
        for stray in tables.by_job[name].keys() - known:
            yield Violation("no row without its job", stray, f"{name} has rows of it")


def _accounts(tables: Tables) -> Iterator[Violation]:
    moved: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for transfer in tables.rows["transfers"]:
        moved[transfer["credit_id"]] += transfer["amount_uusd"]
        moved[transfer["debit_id"]] -= transfer["amount_uusd"]
        if transfer["amount_uusd"] <= 0 or transfer["debit_id"] == transfer["credit_id"]:
            yield Violation("a transfer moves something", transfer["job_id"] or "", f"{transfer}")
    for hold in tables.rows["holds"]:
        if hold["state"] == "open":
            held[hold["account_id"]] += hold["amount_uusd"]
    for account in tables.rows["accounts"]:
        name, balance = f"account {account['id']} ({account['kind']})", account["balance_uusd"]
        if balance != moved[account["id"]]:
            yield Violation(
                "a balance is its transfers", "", f"{name} has {balance}, its transfers give {moved[account['id']]}"
            )
        open_holds = held[account["id"]]
        if account["held_uusd"] != open_holds:
            facts = f"{name} has {account['held_uusd']} held, its open holds give {open_holds}"
            yield Violation("held is the open holds", "", facts)
        if balance < account["held_uusd"] and account["kind"] not in MAY_BE_NEGATIVE:
            yield Violation("nobody is overdrawn", "", f"{name} has {balance} and {account['held_uusd']} held")
    total = sum(account["balance_uusd"] for account in tables.rows["accounts"])
    if total:
        yield Violation("all balances sum to zero", "", f"they sum to {total}")
    for stray in moved.keys() - {account["id"] for account in tables.rows["accounts"]}:
        yield Violation("a transfer has accounts", "", f"{stray} is none")


def _states(tables: Tables, job: Record) -> Iterator[Violation]:
    events = sorted(tables.of("job_events", job["id"]), key=lambda event: event["seq"])
    states = [event["state"] for event in events]
    if job["state"] not in FINAL:
        yield Violation("every job ends", job["id"], f"it is {job['state']}: {states}")
    if [event["seq"] for event in events] != list(range(len(events))):
        yield Violation("events are numbered without gaps", job["id"], f"{[event['seq'] for event in events]}")
    if sum(state in FINAL for state in states) > 1:
        yield Violation("a job ends once", job["id"], f"{states}")
    before = ""
    for state in states:
        if state not in NEXT.get(before, set()):
            yield Violation("states follow the lifecycle", job["id"], f"{states}")
            break
        before = state
    if before != job["state"]:
        yield Violation("the last event is the state", job["id"], f"{states}, and it is {job['state']}")


def _hold(tables: Tables, job: Record) -> Iterator[Violation]:
    holds = tables.of("holds", job["id"])
    paid = sum(transfer["amount_uusd"] for transfer in tables.of("transfers", job["id"]))
    if len(holds) != 1:
        yield Violation("a job has one hold", job["id"], f"it has {len(holds)}")
        return
    (hold,) = holds
    facts = (
        f"hold {hold['amount_uusd']} ({hold['state']}, settled {hold['settled_uusd']}), "
        f"cost {job['cost_uusd']}, transfers {paid}"
    )
    if job["state"] in FINAL and hold["state"] == "open":
        yield Violation("the hold of a job that is over is closed", job["id"], facts)
    if not paid == job["cost_uusd"] == hold["settled_uusd"] <= hold["amount_uusd"] == job["hold_uusd"]:
        yield Violation("cost, transfers and hold agree", job["id"], facts)
    if hold["account_id"] != job["owner_id"]:
        yield Violation("the buyer pays", job["id"], f"the hold is {hold['account_id']}'s, the job {job['owner_id']}'s")
    for transfer in tables.of("transfers", job["id"]):
        if transfer["debit_id"] != job["owner_id"]:
            yield Violation("the buyer pays", job["id"], f"{transfer['debit_id']} paid, the job is {job['owner_id']}'s")


def _attempts(tables: Tables, job: Record, hostile: Mapping[str, str]) -> Iterator[Violation]:
    attempts = tables.of("attempts", job["id"])
    frames = tables.frames(job["id"])
    earned: Counter[str] = Counter()
    for transfer in tables.of("transfers", job["id"]):
        if transfer["kind"] == "pay":
            earned[transfer["credit_id"]] += transfer["amount_uusd"]
    recorded: Counter[str] = Counter()
    taken: set[int] = set()
    for attempt in attempts:
        if attempt["state"] in ("leased", "streaming"):
            yield Violation(
                "no attempt of a job that is over is open", job["id"], f"{attempt['id']} is {attempt['state']}"
            )
        if not attempt["paid_uusd"]:
            continue
        recorded[attempt["host_id"]] += attempt["paid_uusd"]
        span = range(attempt["first_frame"], attempt["end_frame"])
        pieces = frames[span.start : span.stop]
        delivered, prompt = sum(frame.tokens for frame in pieces), PROMPT_TOKENS
        if attempt["host_id"] in hostile:
            # Of what it claims no more than its bytes can hold, and nothing of nothing.
            shown = sum(len(frame.text.encode()) for frame in pieces)
            delivered = shown + UNSEEN_TOKENS if shown else 0
        if any(other["host_id"] in hostile for other in attempts):
            # The prompt is counted by whoever ends the answer, and paid to whoever began it.
            prompt = len(job["body"]) if delivered else 0
        price_in, price_out = _prices(tables, attempt["host_id"], job["model"])
        worth = (delivered * price_out + prompt * price_in) // MTOK + bool(delivered)
        if span.stop > len(frames) or attempt["tokens"] > delivered or attempt["paid_uusd"] > worth:
            yield Violation(
                "only delivered frames are paid",
                job["id"],
                f"attempt {attempt['id']} was paid {attempt['paid_uusd']} for {attempt['tokens']} tokens in frames {span.start} to "
                f"{span.stop}; the answer has {len(frames)} frames, {delivered} tokens there, worth {worth}",
            )
        if taken & set(span):
            yield Violation("no frame is paid twice", job["id"], f"{sorted(taken & set(span))[:5]}")
        taken |= set(span)
    if +earned != +recorded:
        yield Violation(
            "hosts earn what their attempts say", job["id"], f"transfers {dict(earned)}, attempts {dict(recorded)}"
        )


def _prices(tables: Tables, host: str, model: str) -> tuple[int, int]:
    """Return what a host asks for a model, micro-dollars per million tokens in and out."""
    (row,) = [row for row in tables.rows["hosts"] if row["id"] == host]
    (offer,) = [offer for offer in json.loads(bytes(row["models"])) if offer[0] == model]
    return offer[3], offer[4]


def _answer(tables: Tables, job: Record, hostile: Mapping[str, str]) -> Iterator[Violation]:
    if is_chain(job):
        for wrong in wrong_outputs(job, tables.frames(job["id"])):
            yield Violation("a chain's output says each container once", job["id"], wrong)
        return
    wanted = wanted_of(bytes(job["body"]))
    frames = [frame for frame in tables.frames(job["id"]) if frame.text]
    for number, frame in enumerate(frames):
        if not is_frame(frame.text, wanted.tag, number):
            yield Violation(
                "the answer is the order's own, frame by frame", job["id"], f"frame {number} is {frame.text!r}"
            )
            return
    if len(frames) > wanted.frames:
        yield Violation(
            "an answer has no more than was asked for", job["id"], f"{len(frames)} of {wanted.frames} frames"
        )
    # That an answer is good, nobody can check: one that a hostile host ended may be short.
    ended_by = {attempt["host_id"] for attempt in tables.of("attempts", job["id"]) if attempt["state"] == "done"}
    if job["state"] == "completed" and len(frames) < wanted.frames and not ended_by & hostile.keys():
        yield Violation("a completed answer is whole", job["id"], f"{len(frames)} of {wanted.frames} frames")


def _receipt(tables: Tables, job: Record) -> Iterator[Violation]:
    receipts = tables.of("receipts", job["id"])
    if len(receipts) != 1:
        yield Violation("a job has one receipt", job["id"], f"it has {len(receipts)}")
        return
    (receipt,) = receipts
    keys = {key["keyid"]: key for key in tables.rows["signing_keys"] if key["holder_kind"] == "coordinator"}
    payload = bytes(receipt["payload"])
    signed = b"DSSEv1 %d %b %d %b" % (len(RECEIPT_TYPE), RECEIPT_TYPE, len(payload), payload)
    try:
        VerifyKey(bytes.fromhex(keys[receipt["keyid"]]["public_key"])).verify(signed, bytes(receipt["signature"]))
    except (KeyError, BadSignatureError) as error:
        yield Violation("receipts are signed by the coordinator", job["id"], repr(error))
        return
    said = json.loads(payload)["predicate"]
    amounts = said["amounts"]
    posted = {transfer["id"]: transfer["amount_uusd"] for transfer in tables.of("transfers", job["id"])}
    copied = {transfer["transfer"]: transfer["amount_uusd"] for transfer in amounts["transfers"]}
    held = amounts["charged_uusd"] + amounts["released_uusd"]
    facts = (said["state"], amounts["charged_uusd"], held, copied)
    if facts != (job["state"], job["cost_uusd"], job["hold_uusd"], posted):
        yield Violation(
            "the receipt says what was posted", job["id"], f"{facts} and {job['state']}, {job['cost_uusd']}, {posted}"
        )
    at = 0
    for segment in said["segments"]:
        if segment["first_frame"] != at:
            yield Violation("segments follow each other", job["id"], f"{said['segments']}")
        at = segment["end_frame"]
    if said["segments"] and at != len(tables.frames(job["id"])):
        yield Violation(
            "segments are the answer",
            job["id"],
            f"they end at {at}, the answer has {len(tables.frames(job['id']))} frames",
        )


def envelope(receipt: Record) -> bytes:
    """Return a stored receipt as it is published, for the offline verifier."""
    signature = {"keyid": receipt["keyid"], "sig": base64.b64encode(bytes(receipt["signature"])).decode()}
    payload = base64.b64encode(bytes(receipt["payload"])).decode()
    return json.dumps({"payloadType": RECEIPT_TYPE.decode(), "payload": payload, "signatures": [signature]}).encode()
