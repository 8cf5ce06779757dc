"""Frozen values of the ledger."""

from enum import StrEnum

import msgspec

PAYMENTS_IN = b"comptoir-paid-in"
"""Account that deposits come from; its balance is minus everything ever paid in."""
PROMOTIONS = b"comptoir-promote"
"""Account that sign-up credit comes from."""
FEES = b"comptoir-fees-00"
"""Account that the platform's part goes to (a later coordinator gets its own, so that no row is hot)."""

HOUSE_ACCOUNTS = {PAYMENTS_IN: "payments_in", PROMOTIONS: "promotions", FEES: "fees"}
"""The house's own accounts and their kinds. Ids are 16 ASCII bytes, as no time-ordered id is before year 5000."""


class HoldState(StrEnum):
    """open -> settled | released."""

    OPEN = "open"
    """Credit is set aside."""
    SETTLED = "settled"
    """The job was paid (perhaps less than the hold); the rest went back."""
    RELEASED = "released"
    """All of it went back."""


class Account(msgspec.Struct, frozen=True):
    """A balance at one moment."""

    id: bytes
    kind: str
    """``buyer``, ``host``, ``fees``, ``payments_in`` or ``promotions``."""
    balance_uusd: int
    held_uusd: int

    @property
    def free_uusd(self) -> int:
        """What can still be spent: balance less holds."""
        return self.balance_uusd - self.held_uusd


class Transfer(msgspec.Struct, frozen=True):
    """One row of the ledger; never edited."""

    id: bytes
    debit_id: bytes
    """Account that gives."""
    credit_id: bytes
    """Account that gets."""
    amount_uusd: int
    """> 0."""
    kind: str
    """``signup``, ``deposit``, ``pay`` (buyer to host), ``fee`` (buyer to house)."""
    job_id: bytes | None
    created_ms: int


class Statement(msgspec.Struct, frozen=True):
    """An account and its newest transfers."""

    account: Account
    transfers: list[Transfer]
