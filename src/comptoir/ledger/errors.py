"""The errors of the ledger."""

from comptoir.kit.errors import Refusal


class LedgerRefusal(Refusal):
    """Root of the ledger's errors."""


class InsufficientCredit(LedgerRefusal):
    """The account's free credit is below the amount requested; nothing was written."""

    def __init__(self, *, needed_uusd: int, free_uusd: int) -> None:
        super().__init__(f"this needs {needed_uusd / 10_000:.4f} credits and {free_uusd / 10_000:.4f} are free")
        self.needed_uusd = needed_uusd
        self.free_uusd = free_uusd


class OwnMoneyShort(InsufficientCredit):
    """The credit is there, but it takes promotional credit, which the chosen host does not take."""


class UnknownAccount(LedgerRefusal):
    """No such account."""


class HoldMismatch(LedgerRefusal):
    """The job already holds something else, or its hold is closed."""
