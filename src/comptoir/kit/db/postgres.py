"""The scale-out store: PostgreSQL through psycopg, one batching connection for writes and one for reads.

Needs the extra ``comptoir[postgres]``. Imported only when a postgresql:// address is configured.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg

from comptoir.kit.db.schema import Table
from comptoir.kit.db.tx import Row, placeholders_percent, postgres_insert, postgres_select, postgres_update

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5

IDLE_IN_TRANSACTION_MS_MAX = 3000
"""How long a coordinator may hold its locks without a word (stopped, or its machine gone) before the server ends its
transaction and lets the others go on. Far above the longest a group computes between two statements."""


def connect(url: str) -> "psycopg.Connection[Row]":
    """Open *url*; transactions are ours (autocommit), every statement is prepared at its first use."""
    connection: psycopg.Connection[Row] = psycopg.connect(
        url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S,
        options=f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS_MAX}",
    )  # fmt: skip
    connection.prepare_threshold = 0
    connection.prepared_max = 512
    return connection


def _gone(connection: "psycopg.Connection[Row]") -> bool:
    return bool(connection.closed or connection.broken)


class PostgresTx:
    """`Tx` over one PostgreSQL connection."""

    dialect = "postgresql"

    def __init__(self, connection: "psycopg.Connection[Row]") -> None:
        self._cursor = connection.cursor(binary=True)

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        return self._cursor.execute(placeholders_percent(sql), params).rowcount

    def fetch(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        return self._cursor.execute(placeholders_percent(sql), params).fetchall()

    def insert(
        self,
        table: Table,
        rows: Sequence[Row],
        *,
        columns: tuple[str, ...] | None = None,
        ignore_conflicts: bool = False,
    ) -> int:
        if not rows:
            return 0
        sql = postgres_insert(table, columns or table.names, ignore_conflicts)
        return self._cursor.execute(sql, [list(column) for column in zip(*rows, strict=True)]).rowcount

    def update(self, table: Table, columns: tuple[str, ...], rows: Sequence[Row]) -> int:
        return self._update(table, columns, rows, adding=False)

    def add(self, table: Table, columns: tuple[str, ...], rows: Sequence[Row]) -> int:
        return self._update(table, columns, rows, adding=True)

    def _update(self, table: Table, columns: tuple[str, ...], rows: Sequence[Row], *, adding: bool) -> int:
        if not rows:
            return 0
        sql = postgres_update(table, columns, adding)
        return self._cursor.execute(sql, [list(column) for column in zip(*rows, strict=True)]).rowcount

    def select(
        self, table: Table, columns: tuple[str, ...], keys: Sequence[Any], *, by: str | None = None, lock: bool = False
    ) -> list[Row]:
        if not keys:
            return []
        sql = postgres_select(table, columns, by or table.key[0], lock)
        return self._cursor.execute(sql, [list(keys)]).fetchall()


class PostgresStore:
    """The two connections of a coordinator to its PostgreSQL server."""

    dialect = "postgresql"
    inline_reads = False
    locks_rows = True

    def __init__(self, url: str) -> None:
        self._url = url
        self._writing = connect(url)
        self._reading = connect(url)
        self._transaction = ""
        self.tx = PostgresTx(self._writing)

    def begin(self) -> None:
        if _gone(self._writing):
            self._writing = connect(self._url)
            self.tx = PostgresTx(self._writing)
        # One message for both; the number answers `committed` should the connection break during COMMIT.
        cursor = self._writing.execute("BEGIN; SELECT pg_current_xact_id()::text", prepare=False)
        cursor.nextset()
        ((self._transaction,),) = cursor.fetchall()

    def commit(self) -> None:
        self._writing.execute("COMMIT")

    def committed(self) -> bool | None:
        """Ask the server what became of the last transaction; None: its old process has not ended it yet.

        Raises:
            psycopg.OperationalError: the server is out of reach.
        """
        with connect(self._url) as connection:
            row = connection.execute("SELECT pg_xact_status(%s::xid8)", (self._transaction,)).fetchone()
        status = row[0] if row is not None else None
        return None if status == "in progress" else status == "committed"

    def rollback(self) -> None:
        if not _gone(self._writing):
            self._writing.execute("ROLLBACK")

    def savepoint(self) -> None:
        self._writing.execute("SAVEPOINT item")

    def release(self) -> None:
        self._writing.execute("RELEASE SAVEPOINT item")

    def rollback_to(self) -> None:
        self._writing.execute("ROLLBACK TO SAVEPOINT item")
        self._writing.execute("RELEASE SAVEPOINT item")

    def read(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        try:
            return self._read(sql, params)
        except psycopg.OperationalError:
            if not _gone(self._reading):
                raise
            # The server restarted since the last question: asking again changes nothing.
            return self._read(sql, params)

    def _read(self, sql: str, params: Sequence[Any]) -> list[Row]:
        if _gone(self._reading):
            self._reading = connect(self._url)
        return self._reading.cursor(binary=True).execute(placeholders_percent(sql), params).fetchall()

    def survey(self, look: Callable[[Callable[[str], list[Row]]], T]) -> T:
        """Run *look* over one snapshot, on a connection of its own."""
        with connect(self._url) as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return look(lambda sql: connection.execute(sql).fetchall())

    def retryable(self, error: Exception) -> bool:
        """Deadlock, serialisation failure or a lost connection: the batch may run again if it was not committed."""
        return isinstance(error, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure) or _gone(
            self._writing
        )

    def away(self, error: Exception) -> bool:
        """Tell whether *error* means that the server is out of reach or out of order."""
        return isinstance(error, psycopg.OperationalError | psycopg.errors.IdleInTransactionSessionTimeout)

    def close(self) -> None:
        self._reading.close()
        self._writing.close()
