"""The scale-out store: PostgreSQL through psycopg: one connection writes in batches, one reads points, others lists.

Needs the extra ``comptoir[postgres]``. Imported only when a postgresql:// address is configured.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg

from comptoir.kit.db.heads import HeadMismatch, HeadMove, postgres_move_and_commit
from comptoir.kit.db.schema import Table
from comptoir.kit.db.store import OUT_OF_REACH, Look
from comptoir.kit.db.tx import Row, placeholders_percent, postgres_insert, postgres_select, postgres_update

T = TypeVar("T")

CONNECT_TIMEOUT_S = 2
"""The shortest that libpq supports; a live server takes milliseconds."""

GONE_MS = 10_000
"""Data unacknowledged for this long ends a connection: the machine vanished (TCP only)."""

MARKS_LOCK = 7164780238603
MARKS = """
CREATE TABLE IF NOT EXISTS commit_marks (writer bytea PRIMARY KEY, number bigint NOT NULL, made_ms bigint NOT NULL)
"""
"""A row for each process that writes: the number of its last committed group. It belongs to no room, because the store
needs it before the first migration."""
NOW_MS = "CAST(extract(epoch FROM now()) * 1000 AS bigint)"
MARKS_KEPT_MS = 30 * 24 * 3_600_000

IDLE_IN_TRANSACTION_MS_MAX = 3000
"""How long a coordinator may hold its locks while idle (stopped, or its machine gone) before the server aborts its
transaction for the others. Far above the longest that a group computes between two statements."""


def connect(url: str, name: str = "comptoir") -> "psycopg.Connection[Row]":
    """Open *url*; transactions are ours (autocommit), every statement is prepared at its first use."""
    connection: psycopg.Connection[Row] = psycopg.connect(
        url,
        autocommit=True,
        application_name=name,
        connect_timeout=CONNECT_TIMEOUT_S,
        tcp_user_timeout=GONE_MS,
        options=f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS_MAX}",
    )
    connection.prepare_threshold = 0
    connection.prepared_max = 512
    return connection


def _gone(connection: "psycopg.Connection[Row]") -> bool:
    return bool(connection.closed or connection.broken)


class PostgresTx:
    """`Tx` over one PostgreSQL connection."""

    dialect = "postgresql"

    def __init__(self, connection: "psycopg.Connection[Row]") -> None:
        self.notes: list[bytes] = []
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


class PostgresReading:
    """`Reading` over one PostgreSQL connection; a broken one is opened again."""

    def __init__(self, connect: "Callable[[], psycopg.Connection[Row]]") -> None:
        self._connect = connect
        self._connection = connect()

    def read(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        try:
            return self._read(sql, params)
        except psycopg.OperationalError:
            if not _gone(self._connection):
                raise
            # The server restarted since the last query: reading again is harmless.
            return self._read(sql, params)

    def _read(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        if _gone(self._connection):
            self._connection = self._connect()
        return self._connection.cursor(binary=True).execute(placeholders_percent(sql), params or None).fetchall()

    def snapshot(self, look: Look[T]) -> T:
        try:
            self._begin()
        except psycopg.OperationalError:
            if not _gone(self._connection):
                raise
            self._begin()
        try:
            return look(self._read)
        finally:
            if not _gone(self._connection):
                self._connection.execute("ROLLBACK")

    def _begin(self) -> None:
        if _gone(self._connection):
            self._connection = self._connect()
        self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def interrupt(self) -> None:
        # One that is broken by now has nothing to interrupt, and a server that is gone no way to be told.
        with contextlib.suppress(psycopg.Error):
            self._connection.cancel_safe(timeout=CONNECT_TIMEOUT_S)

    def close(self) -> None:
        self._connection.close()


class PostgresStore:
    """The connections of a coordinator to its PostgreSQL server, and how to find out whether a commit happened."""

    dialect = "postgresql"
    remote = True

    def __init__(self, url: str, *, name: str = "comptoir") -> None:
        self._url = url
        self._name = name
        self._open: set[psycopg.Connection[Row]] = set()
        self._me = f"'\\x{os.urandom(16).hex()}'"
        self._group = 0
        self._writing = self._connect()
        self._reading = PostgresReading(self._connect)
        self.tx = PostgresTx(self._writing)
        self._kept_notes = 0
        self.reconnected = False
        self._make_mark()

    def _connect(self) -> "psycopg.Connection[Row]":
        for connection in [one for one in self._open.copy() if _gone(one)]:
            self._open.discard(connection)
        connection = connect(self._url, self._name)
        self._open.add(connection)
        return connection

    def _make_mark(self) -> None:
        with self._writing.transaction():
            # Coordinators that start together would both find that there is no table, and one would fail.
            self._writing.execute("SELECT pg_advisory_xact_lock(%s)", (MARKS_LOCK,))
            self._writing.execute(MARKS)
            self._writing.execute(f"DELETE FROM commit_marks WHERE made_ms < {NOW_MS} - {MARKS_KEPT_MS}")
            self._writing.execute(f"INSERT INTO commit_marks VALUES ({self._me}, 0, {NOW_MS})")

    def begin(self) -> None:
        if not _gone(self._writing):
            try:
                self._begin()
                return
            except psycopg.OperationalError:
                if not _gone(self._writing):
                    raise
        # The server restarted since the last group, or has been cut off.
        self._writing = self._connect()
        self.tx = PostgresTx(self._writing)
        self.reconnected = True
        self._begin()

    def _begin(self) -> None:
        self.tx.notes = []
        # One message for both; the mark answers `committed` should the connection break during COMMIT.
        self._group += 1
        mark = f"UPDATE commit_marks SET number = {self._group:d}, made_ms = {NOW_MS} WHERE writer = {self._me}"
        cursor = self._writing.execute(f"BEGIN; {mark}", prepare=False)
        cursor.nextset()
        if cursor.rowcount != 1:  # An older state of the database was restored under us.
            self.reconnected = True
            sql = f"INSERT INTO commit_marks VALUES ({self._me}, {self._group:d}, {NOW_MS})"
            self._writing.execute(sql, prepare=False)

    def commit(self, move: HeadMove | None = None) -> None:
        if move is None:
            self._writing.execute("COMMIT")
            return
        try:
            # One message for both, of literals that are ours.
            moved = self._writing.execute(postgres_move_and_commit(move), prepare=False).rowcount
        except psycopg.errors.NotNullViolation as error:
            raise HeadMismatch from error
        if moved != 1:
            self.reconnected = True

    def committed(self) -> bool | None:
        """Tell by its mark whether the last transaction was committed. Waits until the server has ended it.

        Raises:
            psycopg.OperationalError: the server is unreachable.
        """
        with contextlib.closing(self._connect()) as connection:
            row = connection.execute(f"SELECT number FROM commit_marks WHERE writer = {self._me} FOR UPDATE").fetchone()
        return row is not None and row[0] == self._group

    def rollback(self) -> None:
        if not _gone(self._writing):
            self._writing.execute("ROLLBACK")

    def savepoint(self) -> None:
        self._kept_notes = len(self.tx.notes)
        self._writing.execute("SAVEPOINT item")

    def release(self) -> None:
        self._writing.execute("RELEASE SAVEPOINT item")

    def rollback_to(self) -> None:
        del self.tx.notes[self._kept_notes :]
        self._writing.execute("ROLLBACK TO SAVEPOINT item")
        self._writing.execute("RELEASE SAVEPOINT item")

    def read(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        return self._reading.read(sql, params)

    def open_reading(self) -> PostgresReading:
        """Open another connection for reads."""
        return PostgresReading(self._connect)

    def retryable(self, error: Exception) -> bool:
        """Deadlock, serialisation failure or a lost connection: the batch may run again if it was not committed."""
        return isinstance(error, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure) or _gone(
            self._writing
        )

    def is_outage(self, error: Exception) -> bool:
        """Tell whether *error* means that the server is unreachable or failing."""
        return isinstance(error, psycopg.OperationalError | psycopg.errors.IdleInTransactionSessionTimeout)

    def outage_words(self, error: Exception) -> str:
        """Return one message for all: the cause has to be found at the server."""
        return OUT_OF_REACH

    def answers(self) -> bool:
        """Check whether the server answers within `CONNECT_TIMEOUT_S`. A refusal counts as an answer."""
        try:
            connect(self._url).close()
        except psycopg.errors.ConnectionTimeout:
            return False
        except psycopg.OperationalError:
            return True
        return True

    def cut(self) -> None:
        """Break every connection, so that whoever waits on one gets an error at once."""
        for connection in self._open.copy():
            # One that was closed meanwhile needs no cutting.
            with contextlib.suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._writing.execute(f"DELETE FROM commit_marks WHERE writer = {self._me}")
        self._reading.close()
        self._writing.close()
