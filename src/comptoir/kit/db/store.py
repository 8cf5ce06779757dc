"""What the writer needs from a database; implemented by `SqliteStore` and `PostgresStore`."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from comptoir.kit.db.heads import HeadMove
from comptoir.kit.db.tx import Row
from comptoir.kit.errors import Unavailable

T = TypeVar("T")


OUT_OF_REACH = "the database is out of reach; try again in a moment"


class DatabaseUnusable(Unavailable):
    """The database file is damaged, or not readable and writable; only a person can repair that."""


class Fetch(Protocol):
    """Runs one query of a snapshot."""

    def __call__(self, sql: str, params: Sequence[Any] = (), /) -> list[Row]: ...


Look = Callable[[Fetch], T]
"""A snapshot read: any number of queries that all see the same moment."""


class Reading(Protocol):
    """A connection that only reads, for one thread at a time; it may be used by another later."""

    def read(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run one query; return all its rows."""
        ...

    def snapshot(self, look: "Look[T]") -> T:
        """Run *look* over one snapshot."""
        ...

    def interrupt(self) -> None:
        """Have the query that runs fail, if one does; called in another thread, and may block it for a moment."""
        ...

    def close(self) -> None: ...


class Store(Protocol):
    """A connection for writes, one for reads, and what their errors mean. For the writer thread, unless noted."""

    dialect: str
    remote: bool
    """Whether it is a server: reads need a thread, rows that are decided on have to be locked because others write too,
    and it can be unreachable."""
    tx: Any
    reconnected: bool
    """Whether a new connection was opened since this was last cleared, so that the server may be another."""

    def begin(self) -> None:
        """Open a transaction, on a new connection if the old one is broken; raises if the database is unreachable."""
        ...

    def commit(self, move: HeadMove | None = None) -> None:
        """Move the commit record's head, if it moves, and commit.

        Raises:
            HeadMismatch: the head is not where it should be; the transaction has to be rolled back.
        """
        ...

    def rollback(self) -> None: ...
    def savepoint(self) -> None: ...
    def release(self) -> None: ...
    def rollback_to(self) -> None: ...

    def read(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run one query on the connection of point reads; called by their reader."""
        ...

    def open_reading(self) -> Reading:
        """Open another connection for reads; called in any thread."""
        ...

    def retryable(self, error: Exception) -> bool:
        """Tell whether the group may run again if it was not committed."""
        ...

    def committed(self) -> bool | None:
        """Tell whether the last transaction, whose COMMIT was not answered, was committed; None: not ended yet."""
        ...

    def is_outage(self, error: Exception) -> bool:
        """Tell whether *error* means that the database is unreachable or failing, not that a statement is wrong."""
        ...

    def outage_words(self, error: Exception) -> str:
        """Return what such an error means, for callers; without internals of the machine."""
        ...

    def answers(self) -> bool:
        """Check for an answer on a new connection; runs in a thread of its own, for a few seconds at most."""
        ...

    def cut(self) -> None:
        """Break every connection, so that whoever waits on one gets an error at once; called in any thread."""
        ...

    def close(self) -> None: ...
