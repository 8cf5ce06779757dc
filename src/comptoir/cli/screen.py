"""What all commands print the same way: consoles, tables, money, times."""

import json
import sys
import time
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from comptoir.cli.harmless import as_read, harmless
from comptoir.kinds import MILLION, Unit
from comptoir.kit.money import UUSD_PER_CREDIT, UUSD_PER_USD, to_credits, to_usd

PIPE_COLUMNS = 200
"""Width of tables that go into a pipe or a file, where no terminal says how wide it is."""

STATE_STYLES = {
    "completed": "green",
    "running": "cyan",
    "queued": "yellow",
    "failed": "red",
    "cancelled": "magenta",
    "expired": "red",
    "active": "green",
    "draining": "yellow",
    "offline": "dim",
    "done": "green",
    "lost": "red",
    "cut short": "magenta",
}


def out() -> Console:
    """Return a console on standard output as it is now."""
    return _console(sys.stdout)


def err() -> Console:
    """Return a console on standard error as it is now."""
    return _console(sys.stderr)


def _console(stream: Any) -> Console:
    width = None if stream.isatty() else PIPE_COLUMNS
    return Console(file=stream, highlight=False, emoji=False, markup=True, width=width)


def note(text: str) -> None:
    """Say something beside the answer, on standard error, when a person is watching."""
    if text and sys.stderr.isatty():
        click.echo(click.style(text, dim=True), err=True)


def print_json(value: Any) -> None:
    """Print *value* as JSON for programs."""
    click.echo(as_read(json.dumps(value, ensure_ascii=False, indent=2), sys.stdout))


class QuietTable(Table):
    """A table whose plain cells are shown as they are: what hosts and people call themselves is never markup."""

    def add_row(self, *cells: Any, **named: Any) -> None:
        """Add a row; give `Text` where style is wanted."""
        super().add_row(*(Text(harmless(cell)) if isinstance(cell, str) else cell for cell in cells), **named)


def table(*columns: str, right: Iterable[str] = ()) -> QuietTable:
    """Return a quiet table; columns named in *right* hold numbers."""
    made = QuietTable(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    numbers = set(right)
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return made


def facts(rows: Iterable[tuple[str, object]]) -> Table:
    """Return a two-column list of names and values; None is left out."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        if value is not None:
            made.add_row(name, value if isinstance(value, Text | Table) else Text(harmless(str(value))))
    return made


def state(word: str) -> Text:
    """Return a state in its colour."""
    return Text(word, style=STATE_STYLES.get(word, ""))


def money(value: Decimal) -> str:
    """Spell an amount with at least two decimals."""
    exponent = value.as_tuple().exponent
    return f"{value:,.2f}" if isinstance(exponent, int) and exponent > -2 else f"{value:,}"


def credits(amount_uusd: int) -> str:
    """Spell an amount for people: credits."""
    return money(to_credits(amount_uusd))


def credits_and_usd(amount_uusd: int) -> str:
    """Spell an amount as credits and dollars."""
    return f"{credits(amount_uusd)} credits (${money(to_usd(amount_uusd))})"


def price(uusd_per_mtok: int) -> str:
    """Spell a price: dollars a million tokens."""
    return "free" if uusd_per_mtok == 0 else f"${money(to_usd(uusd_per_mtok))}/M"


def unit_price(rate: int, unit: Unit) -> str:
    """Spell a price of so many micro-dollars per million of *unit*: ``0.02 credits per kilobyte``."""
    return f"{money(unit.price_uusd(rate) / UUSD_PER_CREDIT)} credits {unit.priced}" if rate else "free"


def run_price_words(uusd_per_run: int) -> str:
    """Spell the price of a run: ``$0.002 a run``."""
    return "free" if uusd_per_run == 0 else f"${money(to_usd(uusd_per_run))} a run"


def price_words(price: dict[str, Any]) -> str:
    """Spell a price as the server says it (`PriceView`), in dollars: ``$0.0002 per kilobyte``."""
    uusd = price["uusd_per_million"] * price["per"]
    return f"${money(Decimal(uusd) / (MILLION * UUSD_PER_USD))} {price['words']}" if uusd else "free"


def counted(unit: dict[str, Any]) -> str:
    """Spell a count as the server says it (`UnitView`): ``1 run``, ``1,234 bytes``, ``1.2 seconds``."""
    return _unit(unit).format(unit["count"])


def amount(unit: dict[str, Any], *, most: bool = False) -> str:
    """Spell the number of a count, or the most that it may be, without its unit: ``1,234``, ``1.2``."""
    return _unit(unit).amount(unit["most" if most else "count"])


def _unit(unit: dict[str, Any]) -> Unit:
    return Unit(unit["unit"], unit["one"], unit["many"], shown=unit.get("shown", 1))


def ago(at_ms: int | None, *, now_ms: int | None = None) -> str:
    """Spell a past moment as a time span: ``3 s ago``."""
    if not at_ms:
        return "never"
    past_s = max(0, (time.time_ns() // 1_000_000 if now_ms is None else now_ms) - at_ms) // 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if past_s >= size:
            return f"{past_s // size} {unit} ago"
    return f"{past_s} s ago"


def moment(at_ms: int | None) -> str:
    """Spell a moment in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000)) if at_ms else "—"


def span(ms: float | None) -> str:
    """Spell a duration."""
    if ms is None:
        return "—"
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.2f} s"


def short(identifier: str | None) -> str:
    """Shorten a public id for a table; its tail differs where its head is only time."""
    if not identifier or len(identifier) < 24:
        return identifier or "—"
    head, _, digits = identifier.partition("_")
    return f"{head}_{digits[:4]}…{digits[-6:]}"
