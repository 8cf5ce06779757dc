"""Long lists: rendered a little at a time, or once for all who ask until what they show changes."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from comptoir.dispatch import Core, State
from comptoir.kit.http import Reply, encode_json

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


class Rendered(State):
    """Answers as they were last rendered, one for each way of rendering."""

    def __init__(self, core: Core) -> None:
        self._kept: dict[Callable[[Any], Any], tuple[object, bytes]] = {}

    def reply(self, render: Callable[[R], object], source: R) -> Reply:
        """Return what *render* (a function of a module) makes of *source*, as JSON.

        It is called again only when *source* is another object than the last time: the catalog's lists, say, are the
        same until an offer changes.
        """
        kept = self._kept.get(render)
        if kept is None or kept[0] is not source:
            kept = self._kept[render] = source, encode_json(render(source))
        return Reply(200, kept[1])
