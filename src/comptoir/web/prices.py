"""Prices as people read them."""

from decimal import Decimal

from comptoir.kit.money import to_usd


def price(uusd_per_mtok: int) -> str:
    """Spell a price in dollars per million tokens: whole cents, more digits only where they say something."""
    if uusd_per_mtok == 0:
        return "free"
    usd = to_usd(uusd_per_mtok)
    return f"${usd:,.2f}" if usd == usd.quantize(Decimal("0.01")) else f"${usd.normalize():,f}"
