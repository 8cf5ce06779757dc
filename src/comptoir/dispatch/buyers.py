"""Buyers: how many jobs each has under way, and what credit each was last seen to have."""

from comptoir.dispatch.core import Core, State
from comptoir.kit.shares import InFlight

CREDIT_SEEN_MAX = 100_000
"""Buyers whose credit is remembered; beyond it all are forgotten, and their next job waits for its commit."""


class Buyers(State):
    """What is known of buyers without asking the ledger."""

    def __init__(self, core: Core) -> None:
        self.in_flight = InFlight()
        """Unfinished jobs by buyer, here and at other coordinators."""
        self._credit: dict[bytes, int] = {}

    def note_credit(self, owner_id: bytes, free_uusd: int) -> None:
        """Remember what a buyer could still spend when the ledger last said so."""
        if len(self._credit) >= CREDIT_SEEN_MAX:
            self._credit.clear()
        self._credit[owner_id] = free_uusd

    def reserve_cached_credit(self, owner_id: bytes, amount_uusd: int) -> bool:
        """Tell whether the credit last seen covers *amount_uusd*, and count it as spent: a guess, not the ledger."""
        left = self._credit.get(owner_id, -1) - amount_uusd
        if left < 0:
            return False
        self._credit[owner_id] = left
        return True
