"""Builders for tests: facts of a settled job, its segments with or without a host's signature."""

from comptoir.kit import ids
from comptoir.kit.money import cost_half_even, fee_of
from comptoir.kit.signing import SigningKey
from comptoir.link import Frame, Segment, hash_over, hash_start, segment_bytes
from comptoir.receipts.build import statement_bytes
from comptoir.receipts.types import COORDINATOR, HolderKind, PublishedKey, ReceiptFacts, ReceiptTransfer, SegmentFacts

JOB_ID = bytes(15) + b"\x01"
BUYER_ID = bytes(15) + b"\x02"
NOW_MS = 1_750_000_000_000
INPUT_SHA256 = bytes.fromhex("11" * 32)


def make_key(number: int = 1) -> SigningKey:
    """Return the same key for the same *number*."""
    return SigningKey(number.to_bytes(32, "big"))


def make_published_key(
    key: SigningKey | None = None,
    *,
    holder_kind: HolderKind = HolderKind.COORDINATOR,
    holder: str = COORDINATOR,
    valid_from_ms: int = 0,
    revoked_ms: int | None = None,
) -> PublishedKey:
    """Return a registry entry."""
    key = key or make_key()
    return PublishedKey(key.keyid, key.public_key.hex(), holder_kind, holder, valid_from_ms, revoked_ms)


def make_segment(
    *,
    job_id: bytes = JOB_ID,
    number: int = 1,
    frames: int = 3,
    before: SegmentFacts | None = None,
    key: SigningKey | None = None,
    prompt_tokens: int = 10,
    price_out: int = 1_000_000,
    claimed: int = 0,
    output_bytes: int | None = None,
) -> SegmentFacts:
    """Return what attempt *number* delivered after *before*, signed when a *key* is given. One token a frame.

    Args:
        claimed: tokens that the host claims, where that is more.
        output_bytes: None: the bytes of its frames.
    """
    first = before.end_frame if before else 0
    chain = before.running_hash if before else hash_start(job_id)
    chain = hash_over(chain, [Frame("word ")] * frames)
    attempt_id, host_id = (0xA000 + number).to_bytes(16, "big"), (0xB000 + number).to_bytes(16, "big")
    segment = Segment(
        job=ids.public("job", job_id),
        attempt=ids.public("att", attempt_id),
        host=ids.public("host", host_id),
        model="demo",
        input_sha256=INPUT_SHA256.hex(),
        first_frame=first,
        end_frame=first + frames,
        chain=chain.hex(),
        prompt_tokens=prompt_tokens,
        completion_tokens=claimed or frames,
        finish_reason="stop",
    )
    return SegmentFacts(
        attempt_id=attempt_id,
        host_id=host_id,
        first_frame=first,
        end_frame=first + frames,
        running_hash=chain,
        input_count=prompt_tokens,
        output_count=frames,
        output_claimed=claimed,
        output_bytes=5 * frames if output_bytes is None else output_bytes,
        rate_in=0,
        rate_out=price_out,
        finish_reason="stop",
        keyid=key.keyid if key else None,
        statement=statement_bytes(segment) if key else None,
        signature=key.sign(segment_bytes(segment)) if key else None,
    )


def make_facts(
    *,
    job_id: bytes = JOB_ID,
    segments: list[SegmentFacts] | None = None,
    price_out: int = 1_000_000,
    settled_ms: int = NOW_MS,
    fee_bps: int = 1_200,
) -> ReceiptFacts:
    """Return facts that add up: each host earns its share of the tokens, less the fee."""
    segments = [make_segment(job_id=job_id, price_out=price_out)] if segments is None else segments
    transfers, charged = [], 0
    for number, segment in enumerate(segments):
        amount = cost_half_even(segment.output_count * price_out)
        fee = fee_of(amount, fee_bps)
        charged += amount
        transfers.append(ReceiptTransfer(f"t{2 * number}", "host", ids.public("host", segment.host_id), amount - fee))
        transfers.append(ReceiptTransfer(f"t{2 * number + 1}", "fee", "fee", fee))
    fees = sum(row.amount_uusd for row in transfers if row.kind == "fee")
    return ReceiptFacts(
        job_id=job_id,
        buyer_id=BUYER_ID,
        dialect="openai",
        kind="chat",
        model="demo",
        state="completed",
        segments=segments,
        input_unit="token_in",
        output_unit="token_out",
        input_count=segments[0].input_count if segments else 0,
        input_max=100,
        output_count=sum(segment.output_count for segment in segments),
        rate_in=0,
        rate_out=price_out,
        fee_bps=fee_bps,
        held_uusd=charged + 50,
        charged_uusd=charged,
        fee_uusd=fees,
        released_uusd=50,
        transfers=transfers,
        input_sha256=INPUT_SHA256,
        created_ms=settled_ms - 1_000,
        started_ms=settled_ms - 900,
        settled_ms=settled_ms,
    )
