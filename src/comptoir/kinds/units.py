"""Units: what work is counted in, and how prices for it are shown to people."""

from decimal import Decimal

import msgspec

from comptoir.kit.money import PRICE_UUSD_PER_MTOK_MAX, RUN_PRICE_UUSD_MAX

MILLION = 1_000_000
"""Prices are stored per million units, whatever the unit: the same whole numbers for a token and for a run."""


class Unit(msgspec.Struct, frozen=True):
    """Something that is counted and paid for."""

    name: str
    """Name in offers, terms and receipts: lower case, digits and underscores, at most 32 characters."""
    one: str
    """Singular, for people: ``token``."""
    many: str
    """Plural: ``tokens``."""
    per: int = MILLION
    """Number of units that a shown price is for: a million tokens, one run, 1,000 bytes."""
    per_words: str = ""
    """That number in words: ``million tokens``. Empty: *one*."""
    each: str = ""
    """What follows a shown amount: ``a run``. Empty: ``per`` and *per_words*: ``per million tokens``."""
    rate_max: int = PRICE_UUSD_PER_MTOK_MAX
    """Highest price, micro-dollars per million; with the largest count of a frame it fits 64 bits."""
    shown: int = 1
    """Units in one of what people read: 1,000 of a unit that is a millisecond and is shown in seconds."""
    usual_rate: int = 0
    """What `comptoir host` asks where its owner names no price, micro-dollars per million; 0: a price has to be
    named."""

    @property
    def quoted(self) -> str:
        """What a shown price is for, in words."""
        return self.per_words or self.one

    @property
    def priced(self) -> str:
        """What follows the amount when a price is shown: ``a run``, ``per kilobyte``."""
        return self.each or f"per {self.quoted}"

    def price_uusd(self, rate: int) -> Decimal:
        """Return the shown price (of `per` units) in micro-dollars, exactly; *rate* is the price of a million."""
        return Decimal(rate * self.per) / MILLION

    def amount(self, count: int) -> str:
        """Return *count* as people read it, without the unit: ``1,234``, ``1.2`` (of 1,200 milliseconds), exactly."""
        return f"{count:,}" if self.shown == 1 else f"{Decimal(count) / self.shown:,}"

    def format(self, count: int) -> str:
        """Return *count* with the unit: ``1 run``, ``1,234 tokens``, ``1.2 seconds``."""
        return f"{self.amount(count)} {self.one if count == self.shown else self.many}"


TOKEN_IN = Unit("token_in", "prompt token", "prompt tokens", MILLION, "million prompt tokens")
TOKEN_OUT = Unit("token_out", "token", "tokens", MILLION, "million tokens")
RUN = Unit("run", "run", "runs", 1, "run", "a run", rate_max=RUN_PRICE_UUSD_MAX * MILLION)
