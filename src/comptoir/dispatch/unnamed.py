"""Unnamed: callers without a key, where the operator allows them. One house account pays, a day's allowance at a time.

The guardrail is money: the account never has more than what is left of ``infernet_anonymous_uusd_per_day``, so the ledger itself
refuses what is beyond, at however many coordinators.
"""

from comptoir.dispatch.house import House
from comptoir.ledger import UNNAMED

DAY_MS = 24 * 3600 * 1000


async def allow_unnamed(house: House) -> bytes:
    """Return the account that pays for callers without a key, filled up for today (UTC).

    Raises:
        Unavailable: it has to be filled up, and the database is out of reach.
    """
    now_ms = house.clock.now_ms()
    if now_ms >= house.unnamed_until_ms:
        midnight_ms = now_ms - now_ms % DAY_MS
        most_uusd = house.settings.infernet_anonymous_uusd_per_day
        await house.ledger.allow(UNNAMED, most_uusd=most_uusd, since_ms=midnight_ms)
        house.unnamed_until_ms = midnight_ms + DAY_MS
    return UNNAMED
