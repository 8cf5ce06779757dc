"""Prices as hosts type them."""

from collections.abc import Sequence
from decimal import Decimal

import click

from comptoir.kit.money import PRICE_UUSD_PER_MTOK_MAX, RUN_PRICE_UUSD_MAX, UUSD_PER_CREDIT, UUSD_PER_USD

RUN_PRICE_UUSD = 1_000
"""What a container's run costs where its owner says nothing: a tenth of a cent."""


def read_price(text: str) -> int:
    """Read a price a million tokens as micro-dollars: ``0.50`` or ``$0.50`` are dollars, ``50cr`` are credits.

    Raises:
        BadParameter: it is something else, or out of bounds.
    """
    return _read(text, "per million tokens (0.50) or credits (50cr)", PRICE_UUSD_PER_MTOK_MAX)


def read_run_price(text: str) -> int:
    """Read a price a run of a container as micro-dollars: ``0.002`` or ``$0.002`` are dollars, ``0.2cr`` are credits.

    Raises:
        BadParameter: it is something else, or out of bounds.
    """
    return _read(text, "per run (0.002) or credits (0.2cr)", RUN_PRICE_UUSD_MAX)


def _read(text: str, unit_words: str, most_uusd: int) -> int:
    number = text.strip().removeprefix("$")
    unit = UUSD_PER_CREDIT if number.endswith("cr") else UUSD_PER_USD
    try:
        uusd = Decimal(number.removesuffix("cr").strip()) * unit
    except ArithmeticError as error:
        raise click.BadParameter(f"{text!r} is no price; write dollars {unit_words}") from error
    if not uusd.is_finite() or not 0 <= uusd <= most_uusd or uusd != int(uusd):
        per = unit_words.partition(" (")[0]
        raise click.BadParameter(f"{text!r} must be 0 to ${most_uusd // UUSD_PER_USD:,} {per}, in whole micro-dollars")
    return int(uusd)


def read_run_prices(texts: Sequence[str]) -> tuple[int, dict[str, int]]:
    """Read ``[CONTAINER=]PRICE``, any number of them: return the price of all others, and those of the named ones.

    Raises:
        BadParameter: one is no price, or says again what another has said.
    """
    named: dict[str, int] = {}
    for text in texts:
        container, _, price = text.rpartition("=")
        if container in named:
            raise click.BadParameter(f"{text!r}: this price was given already")
        named[container] = read_run_price(price)
    everyone = named.pop("", RUN_PRICE_UUSD)
    return everyone, named


def price_callback(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Read a price option."""
    return read_price(value)


def checked_price(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Check a price option that is handed on as it was typed."""
    read_price(value)
    return value
