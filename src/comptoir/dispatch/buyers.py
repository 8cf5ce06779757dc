"""Buyers: how many unfinished jobs each buyer has, and each buyer's credit as last seen."""

from comptoir.dispatch.core import Core, State
from comptoir.kit.shares import InFlight

CREDIT_SEEN_MAX = 100_000
"""Buyers whose credit is cached; beyond it the cache is cleared, and each buyer's next job waits for its commit."""


class Buyers(State):
    """Facts about buyers that are known without a database read."""

    def __init__(self, core: Core) -> None:
        self.in_flight = InFlight()
        """Unfinished jobs per buyer, over all coordinators."""
        self._credit: dict[bytes, int] = {}

    def note_credit(self, owner_id: bytes, free_uusd: int) -> None:
        """Cache a buyer's free credit as the ledger last reported it."""
        if len(self._credit) >= CREDIT_SEEN_MAX:
            self._credit.clear()
        self._credit[owner_id] = free_uusd

    def reserve_cached_credit(self, owner_id: bytes, amount_uusd: int) -> bool:
        """Tell whether the cached credit covers *amount_uusd*, and deduct it there; a guess, the ledger decides."""
        left = self._credit.get(owner_id, -1) - amount_uusd
        if left < 0:
            return False
        self._credit[owner_id] = left
        return True
