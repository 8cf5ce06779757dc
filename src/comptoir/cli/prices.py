"""Prices as hosts type them."""

from decimal import Decimal

import click

from comptoir.kit.money import PRICE_UUSD_PER_MTOK_MAX, UUSD_PER_CREDIT, UUSD_PER_USD


def read_price(text: str) -> int:
    """Read a price a million tokens as micro-dollars: ``0.50`` or ``$0.50`` are dollars, ``50cr`` are credits.

    Raises:
        BadParameter: it is something else, or out of bounds.
    """
    number = text.strip().removeprefix("$")
    unit = UUSD_PER_CREDIT if number.endswith("cr") else UUSD_PER_USD
    try:
        uusd = Decimal(number.removesuffix("cr").strip()) * unit
    except ArithmeticError as error:
        raise click.BadParameter(
            f"{text!r} is no price; write dollars per million tokens (0.50) or credits (50cr)"
        ) from error
    if not uusd.is_finite() or not 0 <= uusd <= PRICE_UUSD_PER_MTOK_MAX or uusd != int(uusd):
        raise click.BadParameter(f"{text!r} must be 0 to $1,000,000 per million tokens, in whole micro-dollars")
    return int(uusd)


def price_callback(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Read a price option."""
    return read_price(value)


def checked_price(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Check a price option that is handed on as it was typed."""
    read_price(value)
    return value
