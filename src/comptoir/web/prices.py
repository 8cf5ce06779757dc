"""Prices as people read them."""

from decimal import Decimal

from comptoir.kinds import Unit
from comptoir.kit.money import UUSD_PER_CREDIT, run_price, to_credits, to_usd


def price(uusd_per_mtok: int) -> str:
    """Format a price in dollars per million tokens: whole cents, more digits only if they matter."""
    return _dollars(to_usd(uusd_per_mtok))


def run_dollars(uusd_per_mrun: int) -> str:
    """Format the price of one run in dollars, from that of a million."""
    return _dollars(to_usd(run_price(uusd_per_mrun)))


def run_credits(uusd_per_mrun: int) -> str:
    """Format the price of one run in credits."""
    return f"{to_credits(run_price(uusd_per_mrun)).normalize():,f}"


def unit_credits(rate: int, unit: Unit) -> str:
    """Format a price of *rate* micro-dollars per million of *unit*: ``0.02 credits per kilobyte``."""
    return f"{(unit.price_uusd(rate) / UUSD_PER_CREDIT).normalize():,f} credits {unit.priced}" if rate else "free"


def _dollars(usd: Decimal) -> str:
    if not usd:
        return "free"
    return f"${usd:,.2f}" if usd == usd.quantize(Decimal("0.01")) else f"${usd.normalize():,f}"
