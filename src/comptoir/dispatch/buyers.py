"""Buyers: how many unfinished jobs each buyer has, and each buyer's credit as last seen."""

from comptoir.dispatch.core import Core, State
from comptoir.dispatch.errors import QueueBytesFull, TooManyJobBytes
from comptoir.jobs import LiveJob
from comptoir.kit.shares import InFlight
from comptoir.settings import Settings

CREDIT_SEEN_MAX = 100_000
"""Buyers whose credit is cached; beyond it the cache is cleared, and each buyer's next job waits for its commit."""

SMALL_BYTES = 4 << 10
"""A job whose body is no larger is bounded by number (``jobs_per_buyer_max``, ``queue_jobs_max``), not by its bytes."""


class Buyers(State):
    """Facts about buyers that are known without a database read."""

    def __init__(self, core: Core) -> None:
        self.in_flight = InFlight()
        """Unfinished jobs per buyer, over all coordinators."""
        self._credit: dict[bytes, int] = {}
        self._promo: dict[bytes, int] = {}
        """The promotional part of it, of buyers who have any."""
        self._sizes: dict[bytes, int] = {}
        """Bytes of the large ones of them here, by job: a body is counted once, however often its job comes and
        goes."""
        self._bytes_of: dict[bytes, int] = {}
        self.unfinished_bytes = 0
        """Bytes of the bodies of unfinished jobs here, but for those of `SMALL_BYTES`, whose number is bounded."""

    def check_room(self, owner_id: bytes, size: int, settings: Settings) -> None:
        """Do nothing if there is room for a job whose body has *size* bytes; its price does not matter.

        Raises:
            TooManyJobBytes: its buyer has too many bytes under way already. QueueBytesFull: all buyers have.
        """
        if size <= SMALL_BYTES:
            return
        # Whatever is set, one job of the largest size is let in.
        own_max = max(settings.unfinished_bytes_per_buyer_max, settings.prompt_bytes_max)
        if self._bytes_of.get(owner_id, 0) + size > own_max:
            raise TooManyJobBytes(own_max)
        if self.unfinished_bytes + size > max(settings.unfinished_bytes_max, own_max):
            raise QueueBytesFull

    def enter(self, job: LiveJob) -> None:
        """Count a job that is under way here from now on."""
        self.in_flight.enter(job.owner_id)
        size = len(job.body)
        if size > SMALL_BYTES and job.id not in self._sizes:
            self._sizes[job.id] = size
            self._bytes_of[job.owner_id] = self._bytes_of.get(job.owner_id, 0) + size
            self.unfinished_bytes += size

    def leave(self, job: LiveJob) -> None:
        """It is over, or another coordinator's."""
        self.in_flight.leave(job.owner_id)
        size = self._sizes.pop(job.id, 0)
        if size:
            self.unfinished_bytes -= size
            left = self._bytes_of[job.owner_id] - size
            if left:
                self._bytes_of[job.owner_id] = left
            else:
                del self._bytes_of[job.owner_id]

    def note_credit(self, owner_id: bytes, free_uusd: int, promo_uusd: int = 0) -> None:
        """Cache a buyer's free credit, and how much of the balance is promotional, as the ledger last reported."""
        if len(self._credit) >= CREDIT_SEEN_MAX:
            self._credit.clear()
            self._promo.clear()
        self._credit[owner_id] = free_uusd
        if promo_uusd or owner_id in self._promo:
            self._promo[owner_id] = promo_uusd

    def needs_promotions(self, owner_id: bytes, amount_uusd: int) -> bool:
        """Tell whether *amount_uusd* seems to take promotional credit; a guess, the ledger decides."""
        promo = self._promo.get(owner_id, 0)
        return promo > 0 and amount_uusd > self._credit.get(owner_id, 0) - promo

    def reserve_cached_credit(self, owner_id: bytes, amount_uusd: int) -> bool:
        """Tell whether the cached credit covers *amount_uusd*, and deduct it there; a guess, the ledger decides."""
        left = self._credit.get(owner_id, -1) - amount_uusd
        if left < 0:
            return False
        self._credit[owner_id] = left
        return True
