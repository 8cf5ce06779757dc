"""What a command is going to lock, said beforehand, so that the groups of several coordinators never wait in a circle.

Every group takes its rows in one order: tables by name, rows by key. A verb alone in its group does so with its own look
(`Tx.select` with ``lock``). Where several commands meet, the writer gathers what all of them need and locks it at the
beginning of the group. SQLite has one writer, and nothing to lock.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from comptoir.kit.db.schema import Table

Rows = Iterable[tuple[Table, Iterable[bytes]]]
"""Keys by table; keys that are not there yet are no fault."""

V = TypeVar("V", bound=Callable[..., Any])


def locking(rows_of: Callable[[Any], Rows]) -> Callable[[V], V]:
    """Declare on a batch verb which rows one item of it decides on; *rows_of* is called in the writer thread."""

    def mark(verb: V) -> V:
        verb.__dict__["locks"] = rows_of
        return verb

    return mark


def rows_of_item(verb: Callable[..., Any], item: Any) -> Rows:
    """Return what *verb* declared for *item*; nothing when it declared nothing."""
    declared: Callable[[Any], Rows] | None = getattr(verb, "locks", None)
    return declared(item) if declared is not None else ()
