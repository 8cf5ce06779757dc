"""The allowance of callers without a key, if the operator allows them: one account pays, a day's worth at a time.

Money is the limit: the account never has more than what is left of ``infernet_anonymous_uusd_per_day``, so the ledger
itself refuses anything beyond, however many coordinators there are.
"""

from comptoir.dispatch import Core, State
from comptoir.ledger import ANONYMOUS_CALLERS

DAY_MS = 24 * 3600 * 1000


class AnonymousAllowance(State):
    """Until when the account is topped up."""

    def __init__(self, core: Core) -> None:
        self.until_ms = 0
        """When the account has to be topped up again."""


async def allow_anonymous(core: Core) -> bytes:
    """Return the account that pays for callers without a key, topped up for today (UTC).

    Raises:
        Unavailable: it has to be topped up, and the database is unavailable.
    """
    given, now_ms = core.state(AnonymousAllowance), core.clock.now_ms()
    if now_ms >= given.until_ms:
        midnight_ms = now_ms - now_ms % DAY_MS
        most_uusd = core.settings.infernet_anonymous_uusd_per_day
        await core.ledger.allow(ANONYMOUS_CALLERS, most_uusd=most_uusd, since_ms=midnight_ms)
        given.until_ms = midnight_ms + DAY_MS
    return ANONYMOUS_CALLERS
