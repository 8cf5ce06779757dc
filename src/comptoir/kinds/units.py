"""Units: what work is counted in, and how a price for it is told to people."""

from decimal import Decimal

import msgspec

from comptoir.kit.money import PRICE_UUSD_PER_MTOK_MAX, RUN_PRICE_UUSD_MAX

MILLION = 1_000_000
"""Prices are kept per million units, whatever the unit: the same whole numbers for a token and for a run."""


class Unit(msgspec.Struct, frozen=True):
    """One thing that is counted and paid."""

    name: str
    """As offers, terms and receipts name it: lower case, digits and underscores, at most 32 characters."""
    one: str
    """For people: ``token``."""
    many: str
    """``tokens``."""
    per: int = MILLION
    """How many of it a price is told for: a million tokens, one run, 1,000 bytes."""
    per_words: str = ""
    """How that is said: ``million tokens``. Empty: *one*."""
    each: str = ""
    """How a price is worded after its amount: ``a run``. Empty: ``per`` and its quantity: ``per million tokens``."""
    rate_max: int = PRICE_UUSD_PER_MTOK_MAX
    """Highest price, micro-dollars per million; with the largest count of a frame it fits 64 bits."""

    @property
    def quoted(self) -> str:
        """What a price is told for, in words."""
        return self.per_words or self.one

    @property
    def priced(self) -> str:
        """What follows the amount where a price is said: ``a run``, ``per kilobyte``."""
        return self.each or f"per {self.quoted}"

    def price_uusd(self, rate: int) -> Decimal:
        """Return the price of what prices are told for, in micro-dollars, exactly; *rate*: that of a million."""
        return Decimal(rate * self.per) / MILLION

    def format(self, count: int) -> str:
        """Say a count of it: ``1 run``, ``1,234 tokens``."""
        return f"{count:,} {self.one if count == 1 else self.many}"


TOKEN_IN = Unit("token_in", "prompt token", "prompt tokens", MILLION, "million prompt tokens")
TOKEN_OUT = Unit("token_out", "token", "tokens", MILLION, "million tokens")
RUN = Unit("run", "run", "runs", 1, "run", "a run", rate_max=RUN_PRICE_UUSD_MAX * MILLION)
