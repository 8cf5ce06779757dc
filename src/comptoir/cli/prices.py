"""Prices as hosts type them."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

import click

from comptoir.kinds import MILLION, RUN, TOKEN_OUT, Unit
from comptoir.kit.money import UUSD_PER_CREDIT, UUSD_PER_USD, run_price

RUN_PRICE_UUSD = 1_000
"""What a container's run costs where its owner says nothing: a tenth of a cent."""

EXAMPLES = {TOKEN_OUT.name: ("0.50", "50cr")}
"""A price in dollars and in credits by unit, for whom typed none; `EXAMPLE` for the others."""

EXAMPLE = ("0.002", "0.2cr")


def read_unit_price(text: str, unit: Unit) -> int:
    """Read a price for what prices of *unit* are told for: ``0.50`` or ``$0.50`` are dollars, ``50cr`` are credits.

    Returns:
        Micro-dollars per million of the unit.

    Raises:
        BadParameter: it is something else, out of bounds, or finer than a micro-dollar per million.
    """
    number = text.strip().removeprefix("$")
    in_uusd = UUSD_PER_CREDIT if number.endswith("cr") else UUSD_PER_USD
    try:
        rate = Decimal(number.removesuffix("cr").strip()) * in_uusd * MILLION / unit.per
    except ArithmeticError as error:
        dollars, cr = EXAMPLES.get(unit.name, EXAMPLE)
        raise click.BadParameter(
            f"{text!r} is no price; write dollars per {unit.quoted} ({dollars}) or credits ({cr})"
        ) from error
    # The price of an hour is not always a whole number for a million seconds; a millionth of it may be lost.
    if not rate.is_finite() or not 0 <= rate <= unit.rate_max or abs(rate - round(rate)) * MILLION > rate:
        most = unit.price_uusd(unit.rate_max) // UUSD_PER_USD
        raise click.BadParameter(f"{text!r} must be 0 to ${most:,} per {unit.quoted}, in whole micro-dollars")
    return round(rate)


def read_price(text: str) -> int:
    """Read a price a million tokens as micro-dollars; see `read_unit_price`."""
    return read_unit_price(text, TOKEN_OUT)


def read_run_price(text: str) -> int:
    """Read a price a run of a container as micro-dollars, of which it is a whole number; see `read_unit_price`."""
    rate = read_unit_price(text, RUN)
    if rate % MILLION:
        raise click.BadParameter(f"{text!r} must be in whole micro-dollars")
    return run_price(rate)


def read_unit_prices(texts: Sequence[str], units: Mapping[str, Unit]) -> dict[str, dict[str, int]]:
    """Read ``[MODEL:]UNIT=PRICE``, any number of them; a unit is called by its name, or as prices for it are told.

    Returns:
        By model (empty: all others) and unit, micro-dollars per million.

    Raises:
        BadParameter: a unit is none of *units*, a price is none, or one is said twice.
    """
    found: dict[str, dict[str, int]] = {}
    for text in texts:
        told, _, price = text.rpartition("=")
        model, _, name = told.rpartition(":")  # Names of models have colons in them, those of units have none.
        unit = units.get(name) or _spoken(name, units)
        if unit is None:
            known = ", ".join(f"{one.name} (per {one.quoted})" for one in units.values())
            raise click.BadParameter(f"{text!r} must look like [MODEL:]UNIT=PRICE with a unit of {known}")
        of_model = found.setdefault(model, {})
        if unit.name in of_model:
            raise click.BadParameter(f"{text!r}: this price was given already")
        of_model[unit.name] = read_unit_price(price, unit)
    return found


def _spoken(words: str, units: Mapping[str, Unit]) -> Unit | None:
    """Return the unit that prices are told for as *words*: ``cpu-second`` for ``0.002 credits a CPU second``."""
    said = words.replace("_", "-").casefold()
    found = [unit for unit in units.values() if unit.quoted.replace(" ", "-").casefold() == said]
    return found[0] if len(found) == 1 else None


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
