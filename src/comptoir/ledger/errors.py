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


class BondNotCovered(InsufficientCredit):
    """Registering a host takes a bond, and its owner's own money does not cover it."""

    def __init__(self, *, needed_uusd: int, free_uusd: int) -> None:
        words = (
            f"registering a host here takes a bond of {needed_uusd / 10_000:.4f} credits, and {free_uusd / 10_000:.4f} "
            "of your own money are free: add credit, and register again; it comes back some time after the host is retired"
        )
        LedgerRefusal.__init__(self, words)
        self.needed_uusd = needed_uusd
        self.free_uusd = free_uusd


class NoBond(LedgerRefusal):
    """The host has no open bond: nothing was put up for it, or it was returned or forfeited before."""

    def __init__(self, state: str) -> None:
        words = "nothing was put up for this host" if state == "none" else f"the bond of this host is {state}"
        super().__init__(words)
        self.state = state


class UnknownAccount(LedgerRefusal):
    """No such account."""


class HoldMismatch(LedgerRefusal):
    """The job already holds something else, or its hold is closed."""
