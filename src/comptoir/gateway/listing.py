"""Long lists, rendered a little at a time."""

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

RENDERED_AT_ONCE = 100
"""Rows rendered before everybody else has a turn: a millisecond or two."""

R = TypeVar("R")
L = TypeVar("L")


async def in_slices(render: Callable[[R], L], rows: Iterable[R]) -> list[L]:
    """Return what *render* makes of each of *rows*, in order."""
    lines: list[L] = []
    for row in rows:
        if lines and not len(lines) % RENDERED_AT_ONCE:
            await asyncio.sleep(0)
        lines.append(render(row))
    return lines
