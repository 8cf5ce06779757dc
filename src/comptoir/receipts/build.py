"""From the facts of a settled job to signed bytes: pure, and on the hot path (once per job)."""

import msgspec

from comptoir.kit.ids import public
from comptoir.kit.signing import SigningKey
from comptoir.link import Segment, hash_start, pae
from comptoir.receipts.types import (
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    Amounts,
    AuthenticatedBy,
    Digest,
    InTotoStatement,
    Predicate,
    Receipt,
    ReceiptFacts,
    SegmentEntry,
    SegmentFacts,
    Subject,
    Times,
    UnitEntry,
)

_encode = msgspec.json.Encoder().encode


def statement_bytes(segment: Segment) -> bytes:
    """Return the JSON of *segment* that a receipt carries; `link.segment_bytes` is its pre-authentication encoding."""
    return _encode(segment)


def build_and_sign(facts: ReceiptFacts, key: SigningKey) -> tuple[bytes, bytes]:
    """Return the canonical payload of the receipt and the coordinator's signature over it.

    The payload is an in-toto Statement as JSON; its exact bytes are what is signed, stored and shown. The facts are
    signed as given: settlement ensures that sums add up, and this asserts it.
    """
    assert facts.held_uusd == facts.charged_uusd + facts.released_uusd, facts
    assert facts.charged_uusd == sum([transfer.amount_uusd for transfer in facts.transfers]), facts
    payload = _encode(_statement(facts))
    return payload, key.sign(pae(PAYLOAD_TYPE, payload))


def build(facts: ReceiptFacts, key: SigningKey) -> Receipt:
    """Return the signed receipt, ready for :func:`comptoir.receipts.insert_rows`."""
    payload, signature = build_and_sign(facts, key)
    return Receipt(facts.job_id, key.keyid, payload, signature)


def _statement(facts: ReceiptFacts) -> InTotoStatement:
    segments = facts.segments
    job = public("job", facts.job_id)
    answer = segments[-1].running_hash if segments else hash_start(facts.job_id)
    return InTotoStatement(
        STATEMENT_TYPE,
        [Subject(job, Digest(answer.hex()))],
        PREDICATE_TYPE,
        Predicate(
            public("rcpt", facts.job_id),
            job,
            public("usr", facts.buyer_id) if facts.buyer_id is not None else None,
            facts.dialect,
            facts.kind,
            facts.model,
            facts.fingerprint,
            facts.state,
            [_entry(segment, facts) for segment in segments],
            _units(facts),
            facts.fee_bps,
            Amounts(facts.held_uusd, facts.charged_uusd, facts.fee_uusd, facts.released_uusd, facts.transfers),
            facts.input_sha256.hex(),
            Times(facts.created_ms, facts.started_ms, facts.settled_ms),
            facts.files,
        ),
    )


def _units(facts: ReceiptFacts) -> list[UnitEntry]:
    paid = UnitEntry(facts.output_unit, facts.output_count, facts.rate_out)
    if not facts.input_unit:
        return [paid]
    cores = facts.cores or None
    return [UnitEntry(facts.input_unit, facts.input_count, facts.rate_in, True, None, facts.input_max, cores), paid]


def _units_of(segment: SegmentFacts, facts: ReceiptFacts) -> list[UnitEntry]:
    into, out = segment.input_count, segment.output_count
    claimed = segment.output_claimed if segment.output_claimed > out else None
    paid = UnitEntry(facts.output_unit, out, segment.rate_out, False, claimed)
    if not facts.input_unit:
        return [paid]
    claimed = segment.input_claimed if segment.input_claimed > into else None
    return [UnitEntry(facts.input_unit, into, segment.rate_in, True, claimed), paid]


def _entry(segment: SegmentFacts, facts: ReceiptFacts) -> SegmentEntry:
    signed = segment.signature is not None
    assert signed == (segment.keyid is not None) == (segment.statement is not None), "a signature comes whole or not"
    return SegmentEntry(
        public("att", segment.attempt_id),
        public("host", segment.host_id),
        segment.keyid,
        segment.first_frame,
        segment.end_frame,
        segment.running_hash.hex(),
        _units_of(segment, facts),
        segment.finish_reason,
        _authenticated_by(segment),
        segment.statement,
        segment.signature,
        segment.output_bytes,
        segment.passed_ms,
    )


def _authenticated_by(segment: SegmentFacts) -> AuthenticatedBy:
    if segment.signature is not None:
        return AuthenticatedBy.SIGNATURE
    return AuthenticatedBy.RUNNING_HASH if segment.has_key else AuthenticatedBy.HOST_KEY
