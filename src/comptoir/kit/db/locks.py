"""Which rows a command will lock, declared beforehand, so that groups of several coordinators never deadlock.

Every group locks its rows in the same order: tables by name, rows by key. A verb alone in its group does so with its
own query (`Tx.select` with ``lock``). For several commands, the writer collects what all of them need and locks it at
the beginning of the group. SQLite has one writer, so nothing is locked.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from comptoir.kit.db.schema import Table

Rows = Iterable[tuple[Table, Iterable[bytes]]]
"""Keys by table; keys that do not exist yet are allowed."""

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
