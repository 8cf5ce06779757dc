"""Frozen values of the ledger."""

from enum import StrEnum

import msgspec

PAYMENTS_IN = b"comptoir-paid-in"
"""Account that deposits come from; its balance is minus all deposits ever made."""
PROMOTIONS = b"comptoir-promote"
"""Account that sign-up credit and the allowance of callers without a key come from: all it gives is promotional."""
FEES = b"comptoir-fees-00"
"""Fee account of the coordinator in slot 0, which is the only one or the first of several."""

BONDS = b"comptoir-bonds-0"
"""Account that holds what owners put up for their hosts; its balance is the sum of the open bonds."""
FORFEITS = b"comptoir-forfeit"
"""Account that forfeited bonds go to."""

ANONYMOUS_CALLERS = b"comptoir-unnamed"
"""Account that pays for callers without a key, if the operator allows them; stored as ``unnamed``."""

FEE_SLOTS_MAX = 256
"""Coordinators that can have a fee account of their own."""

OPERATOR_ACCOUNTS = {
    PAYMENTS_IN: "payments_in",
    PROMOTIONS: "promotions",
    FEES: "fees",
    ANONYMOUS_CALLERS: "unnamed",
    BONDS: "bonds",
    FORFEITS: "forfeits",
}
"""The operator's accounts and their kinds. Ids are 16 ASCII bytes, as no time-ordered id is before the year 5000."""


def fee_account(slot: int) -> bytes:
    """Return the fee account of the coordinator in *slot* (0..255): one each, so that none waits for another's commit.

    All have the kind ``fees``; the operator's fees are the sum over that kind.
    """
    assert 0 <= slot < FEE_SLOTS_MAX
    return b"comptoir-fees-%02x" % slot


class BondState(StrEnum):
    """open -> returned | forfeited."""

    OPEN = "open"
    """The amount is put up for the host."""
    RETURNED = "returned"
    """It went back to the owner, some time after the host was retired."""
    FORFEITED = "forfeited"
    """An operator took it, for evidence against the host."""


class HoldState(StrEnum):
    """open -> settled | released."""

    OPEN = "open"
    """Credit is reserved."""
    SETTLED = "settled"
    """The job was paid (perhaps less than the hold); the rest was released."""
    RELEASED = "released"
    """All of it was released."""


class Account(msgspec.Struct, frozen=True):
    """A balance at one moment."""

    id: bytes
    kind: str
    """``buyer``, ``host``, ``fees``, ``payments_in``, ``promotions``, ``unnamed`` (for callers without a key),
    ``bonds`` or ``forfeits``."""
    balance_uusd: int
    held_uusd: int
    promo_uusd: int = 0
    """Part of the balance (0..balance) that is promotional: it buys, and never leaves."""

    @property
    def free_uusd(self) -> int:
        """What can be spent: balance minus holds."""
        return self.balance_uusd - self.held_uusd

    @property
    def payable_uusd(self) -> int:
        """What may leave (>= 0): what is free and not promotional. `Book.move` pays out no more than this."""
        return max(0, self.free_uusd - self.promo_uusd)


class Transfer(msgspec.Struct, frozen=True):
    """One row of the ledger; never edited."""

    id: bytes
    debit_id: bytes
    """Account that is debited."""
    credit_id: bytes
    """Account that is credited."""
    amount_uusd: int
    """> 0."""
    kind: str
    """``signup``, ``deposit``, ``allowance`` (keyless callers), ``pay`` (buyer to host), ``fee`` (buyer to fees),
    ``bond`` (owner to bonds), ``bond_back`` (bonds to owner), ``forfeit`` (bonds to forfeits)."""
    job_id: bytes | None
    created_ms: int
    promo_uusd: int | None = None
    """Promotional part of the amount (0..amount); None: posted before promotions were kept apart."""


class AccountStatement(msgspec.Struct, frozen=True):
    """An account and its newest transfers."""

    account: Account
    transfers: list[Transfer]
