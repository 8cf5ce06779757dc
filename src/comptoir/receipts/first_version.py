"""Receipts of version 1, which verify for ever: written while only tokens were sold, with fields named after tokens.

Nothing is written in this form any more. It is converted to the units of version 2, and then checked like any other.
"""

import msgspec

from comptoir.receipts.types import (
    Amounts,
    AuthenticatedBy,
    InTotoStatement,
    Predicate,
    SegmentEntry,
    Subject,
    Times,
    UnitEntry,
)

PREDICATE_TYPE_V1 = "urn:comptoir:receipt:v1"

RUNS = "container"
"""The only kind of version 1 that was counted in runs, each written as a token."""


class SegmentEntryV1(msgspec.Struct, frozen=True):
    """One attempt's part."""

    attempt: str
    host: str
    keyid: str | None
    first_frame: int
    end_frame: int
    chain: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    authenticated_by: AuthenticatedBy
    statement: bytes | None
    signature: bytes | None
    price_in_uusd_per_mtok: int | None = None
    """This host's price, at most the receipt's; absent: the receipt's, as in every answer by a single host."""
    price_out_uusd_per_mtok: int | None = None


class UnitsV1(msgspec.Struct, frozen=True):
    """What the buyer pays for."""

    prompt_tokens: int
    completion_tokens: int


class PricesV1(msgspec.Struct, frozen=True):
    """The agreed prices."""

    in_uusd_per_mtok: int
    out_uusd_per_mtok: int
    fee_bps: int


class PredicateV1(msgspec.Struct, frozen=True):
    """The receipt proper."""

    receipt: str
    job: str
    buyer: str | None
    dialect: str
    kind: str
    model: str
    fingerprint: str
    state: str
    segments: list[SegmentEntryV1]
    units: UnitsV1
    prices: PricesV1
    amounts: Amounts
    input_sha256: str
    times: Times


class StatementV1(msgspec.Struct, frozen=True, rename={"type": "_type", "predicate_type": "predicateType"}):
    """An in-toto Statement about a job, version 1."""

    type: str
    subject: list[Subject]
    predicate_type: str
    predicate: PredicateV1


def lifted(statement: StatementV1) -> InTotoStatement:
    """Convert *statement* to the units of version 2; its predicate type stays that of version 1."""
    old = statement.predicate
    prices = old.prices

    def units(into: int, out: int, rate_in: int, rate_out: int) -> list[UnitEntry]:
        if old.kind == RUNS and not into and not rate_in:
            return [UnitEntry("run", out, rate_out)]
        return [UnitEntry("token_in", into, rate_in, once=True), UnitEntry("token_out", out, rate_out)]

    segments = [
        SegmentEntry(
            each.attempt,
            each.host,
            each.keyid,
            each.first_frame,
            each.end_frame,
            each.chain,
            units(
                each.prompt_tokens,
                each.completion_tokens,
                prices.in_uusd_per_mtok if each.price_in_uusd_per_mtok is None else each.price_in_uusd_per_mtok,
                prices.out_uusd_per_mtok if each.price_out_uusd_per_mtok is None else each.price_out_uusd_per_mtok,
            ),
            each.finish_reason,
            each.authenticated_by,
            each.statement,
            each.signature,
        )
        for each in old.segments
    ]
    total = units(
        old.units.prompt_tokens, old.units.completion_tokens, prices.in_uusd_per_mtok, prices.out_uusd_per_mtok
    )
    predicate = Predicate(
        old.receipt, old.job, old.buyer, old.dialect, old.kind, old.model, old.fingerprint, old.state, segments, total,
        prices.fee_bps, old.amounts, old.input_sha256, old.times,
    )  # fmt: skip
    return InTotoStatement(statement.type, statement.subject, statement.predicate_type, predicate)
