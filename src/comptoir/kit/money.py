"""Money as whole micro-dollars (``amount_uusd: int``). One credit is one US cent, so 100 credits are $1.

With that unit every sample of the published Infrintia reference agrees with every other: 256 tokens at
$0.0001 are 2.56 credits. A price is micro-dollars per million tokens. Rounding happens here and once:
upwards for a hold, half-even at settlement.
"""

from decimal import Decimal

UUSD_PER_USD = 1_000_000
UUSD_PER_CREDIT = 10_000
TOKENS_PER_MTOK = 1_000_000

AMOUNT_UUSD_MAX = 10**15
"""Upper bound of any single amount: a billion dollars. Sums of 9,000 of them still fit 64 bits."""

PRICE_UUSD_PER_MTOK_MAX = 10**12
"""Upper bound of a price: one dollar a token."""

RUN_PRICE_UUSD_MAX = 10**9
"""Upper bound of a container's price per run: 1,000 dollars. As a price of a million runs it still fits 64 bits."""


def cost_up(scaled_uusd: int) -> int:
    """Round *scaled_uusd* (tokens times price, summed; >= 0) up to micro-dollars: what a hold sets aside."""
    assert scaled_uusd >= 0
    return -(-scaled_uusd // TOKENS_PER_MTOK)


def run_price(uusd_per_mrun: int) -> int:
    """Return what one run costs at most at the price of a million: micro-dollars, rounded up."""
    return cost_up(uusd_per_mrun)


def cost_half_even(scaled_uusd: int) -> int:
    """Round *scaled_uusd* (tokens times price, summed; >= 0) to micro-dollars, half to even: settlement."""
    assert scaled_uusd >= 0
    whole, rest = divmod(scaled_uusd, TOKENS_PER_MTOK)
    twice = 2 * rest
    if twice > TOKENS_PER_MTOK or (twice == TOKENS_PER_MTOK and whole & 1):
        whole += 1
    return whole


def fee_of(amount_uusd: int, fee_bps: int) -> int:
    """Return the operator's share of *amount_uusd*: *fee_bps* basis points (0..10,000), rounded down."""
    assert amount_uusd >= 0 and 0 <= fee_bps <= 10_000
    return amount_uusd * fee_bps // 10_000


def to_credits(amount_uusd: int) -> Decimal:
    """Spell micro-dollars as credits (exact; four decimals at most)."""
    return _plain(Decimal(amount_uusd) / UUSD_PER_CREDIT)


def from_credits(amount: Decimal) -> int:
    """Read an amount of credits as micro-dollars.

    Raises:
        ValueError: not above zero, above `AMOUNT_UUSD_MAX`, not finite, or finer than a micro-dollar.
    """
    if not amount.is_finite() or not 0 < amount <= AMOUNT_UUSD_MAX // UUSD_PER_CREDIT:
        raise ValueError(f"must be above 0 and at most {AMOUNT_UUSD_MAX // UUSD_PER_CREDIT:,} credits")
    whole = amount.quantize(Decimal("0.0001"))
    # The comparison is exact, whatever precision the context has.
    if whole != amount:
        raise ValueError("must have at most four decimals: 0.0001 credits are one micro-dollar")
    return int(whole * UUSD_PER_CREDIT)


def to_usd(amount_uusd: int) -> Decimal:
    """Spell micro-dollars as dollars (exact; six decimals at most)."""
    return _plain(Decimal(amount_uusd) / UUSD_PER_USD)


def usd_text(amount_uusd: int) -> str:
    """Spell *amount_uusd* (>= 0) as `to_usd` does, as text; on the hot path."""
    whole, rest = divmod(amount_uusd, UUSD_PER_USD)
    return f"{whole}.{f'{rest:06d}'.rstrip('0') or '0'}"


def price_from_usd_per_token(price: Decimal) -> int:
    """Read a published ``price_per_token`` (dollars a token) as micro-dollars per million tokens.

    Raises:
        ValueError: negative, above one dollar a token, not finite, or finer than a micro-dollar per million.
    """
    scaled = price * UUSD_PER_USD * TOKENS_PER_MTOK if price.is_finite() else None
    if scaled is None or not 0 <= scaled <= PRICE_UUSD_PER_MTOK_MAX or scaled != scaled.to_integral_value():
        raise ValueError("must be between 0 and 1 dollar a token, in steps of a micro-dollar per million tokens")
    return int(scaled)


def price_to_usd_per_token(price_uusd_per_mtok: int) -> Decimal:
    """Spell a price as dollars a token, the unit of Infrintia's ``price_per_token``."""
    return _plain(Decimal(price_uusd_per_mtok) / (UUSD_PER_USD * TOKENS_PER_MTOK))


def _plain(value: Decimal) -> Decimal:
    """Drop trailing zeros but keep one decimal (100 -> 100.0), as the published samples are written."""
    value = value.normalize()
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    return value.quantize(Decimal("0.1")) if exponent > -1 else value
