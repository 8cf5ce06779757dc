"""The embedded store: one SQLite file, WAL, synchronous=FULL, one connection that writes and some that read."""

import os
import sqlite3
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from comptoir.kit.db.heads import SQLITE_MOVE, HeadMismatch, HeadMove
from comptoir.kit.db.schema import Table
from comptoir.kit.db.store import DatabaseUnusable, Look
from comptoir.kit.db.tx import ROWS_PER_STATEMENT_MAX, Row, sqlite_insert, sqlite_select, sqlite_update, statement_sizes

T = TypeVar("T")

STATEMENTS_CACHED = 1024
"""Prepared statements cached; each multi-row statement comes in 28 sizes (`statement_sizes`)."""

DAMAGED = "the database file is damaged; stop, keep a copy of it, and restore a backup"
HELD = "another program holds the database; try again in a moment"
FULL = "the disk is full"
NOT_OURS = "the database file can't be written"

OUT_OF_ORDER = {
    sqlite3.SQLITE_BUSY: HELD,
    sqlite3.SQLITE_LOCKED: HELD,
    sqlite3.SQLITE_NOMEM: "memory has run out",
    sqlite3.SQLITE_READONLY: "the database is read-only",
    sqlite3.SQLITE_IOERR: "the disk refuses to read or write, or is full",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_CANTOPEN: NOT_OURS,
    sqlite3.SQLITE_NOTADB: DAMAGED,
}
"""Messages for errors that affect every statement; an unknown column, for example, affects only one command."""

PRIMARY_CODE = 0xFF
"""SQLite's extended codes carry the primary one in the low byte."""

BUSY_TIMEOUT_S = 10.0
"""How long to wait for a lock that another process (a backup, sqlite3 on the shell) holds."""


CACHE_KIB = 16_000
"""Pages that a connection keeps in memory."""

LIST_CACHE_KIB = 2_000
"""The same for each of those that read lists; the system keeps the file's pages anyway."""


def _unchanged(value: Any) -> Any:
    return value


# Of every value that is no number or text sqlite3 asks how to adapt it; without an answer it finds by an exception that
# nobody does (0.3 us), and a job has sixty such values.
for _stored_as_is in (bytes, type(None)):
    sqlite3.register_adapter(_stored_as_is, _unchanged)


def connect(path: Path, *, read_only: bool, cache_kib: int = CACHE_KIB) -> sqlite3.Connection:
    """Open *path* in autocommit mode, because we issue BEGIN and COMMIT. A new file is readable only by its owner."""
    if not read_only:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(
        str(path),
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS_CACHED,
        timeout=BUSY_TIMEOUT_S,
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute(f"PRAGMA cache_size={-cache_kib:d}")
    connection.execute("PRAGMA wal_autocheckpoint=4000")
    if read_only:
        connection.execute("PRAGMA query_only=ON")
    return connection


def _primary_code(error: Exception) -> int:
    """Return SQLite's primary code of *error*; 0: it is not SQLite's."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & PRIMARY_CODE if isinstance(error, sqlite3.Error) and code is not None else 0


class SqliteTx:
    """`Tx` over one SQLite connection."""

    dialect = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.notes: list[bytes] = []
        self._connection = connection
        self._execute = connection.execute

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        return self._execute(sql, params).rowcount

    def fetch(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        return self._execute(sql, params).fetchall()

    def insert(
        self,
        table: Table,
        rows: Sequence[Row],
        *,
        columns: tuple[str, ...] | None = None,
        ignore_conflicts: bool = False,
    ) -> int:
        names = columns or table.names
        touched = at = 0
        for size in statement_sizes(len(rows)):
            part = rows[at : at + size]
            at += size
            sql = sqlite_insert(table, names, size, ignore_conflicts)
            touched += self._execute(sql, part[0] if size == 1 else tuple(chain.from_iterable(part))).rowcount
        return touched

    def update(self, table: Table, columns: tuple[str, ...], rows: Sequence[Row]) -> int:
        return self._update(table, columns, rows, adding=False)

    def add(self, table: Table, columns: tuple[str, ...], rows: Sequence[Row]) -> int:
        return self._update(table, columns, rows, adding=True)

    def _update(self, table: Table, columns: tuple[str, ...], rows: Sequence[Row], *, adding: bool) -> int:
        touched = at = 0
        for size in statement_sizes(len(rows)):
            part = rows[at : at + size]
            at += size
            sql = sqlite_update(table, columns, size, adding)
            touched += self._execute(sql, part[0] if size == 1 else tuple(chain.from_iterable(part))).rowcount
        return touched

    def select(
        self, table: Table, columns: tuple[str, ...], keys: Sequence[Any], *, by: str | None = None, lock: bool = False
    ) -> list[Row]:
        found: list[Row] = []
        name = by or table.key[0]
        for start in range(0, len(keys), ROWS_PER_STATEMENT_MAX):
            part = list(keys[start : start + ROWS_PER_STATEMENT_MAX])
            # Pad to a power of two with the last key, so that few distinct statements get prepared.
            size = 1 << (len(part) - 1).bit_length()
            part += part[-1:] * (size - len(part))
            found += self._execute(sqlite_select(table, columns, name, size), part).fetchall()
        return found


class SqliteReading:
    """`Reading` over one SQLite connection."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path, read_only=True, cache_kib=LIST_CACHE_KIB)

    def read(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        return self._connection.execute(sql, params).fetchall()

    def snapshot(self, look: Look[T]) -> T:
        self._connection.execute("BEGIN")
        try:
            return look(self.read)
        finally:
            self._connection.execute("ROLLBACK")

    def interrupt(self) -> None:
        self._connection.interrupt()

    def close(self) -> None:
        self._connection.close()


class SqliteStore:
    """The connections of an embedded database: one that writes, one for point reads, and those for lists."""

    dialect = "sqlite"
    remote = False
    reconnected = False

    def __init__(self, path: Path) -> None:
        """Open the file, creating it if there is none.

        Raises:
            DatabaseUnusable: it is damaged, not a database, or not readable and writable.
        """
        self.path = path
        try:
            self._writing = connect(path, read_only=False)
            self._reading = connect(path, read_only=True)
            self._reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except (sqlite3.Error, OSError) as error:
            words = error.strerror if isinstance(error, OSError) else OUT_OF_ORDER.get(_primary_code(error))
            raise DatabaseUnusable(f"{path} can't be used: {words or error}") from error
        self.tx = SqliteTx(self._writing)
        self._kept_notes = 0

    def begin(self) -> None:
        self.tx.notes = []
        self._writing.execute("BEGIN IMMEDIATE")

    def commit(self, move: HeadMove | None = None) -> None:
        if move is not None:
            record, before, after = move
            moved = self.tx.execute(SQLITE_MOVE, (after.entries, after.sha256, record, *before))
            if moved != 1:
                raise HeadMismatch
        self._writing.execute("COMMIT")

    def rollback(self) -> None:
        if self._writing.in_transaction:
            self._writing.execute("ROLLBACK")

    def savepoint(self) -> None:
        self._kept_notes = len(self.tx.notes)
        self._writing.execute("SAVEPOINT item")

    def release(self) -> None:
        self._writing.execute("RELEASE item")

    def rollback_to(self) -> None:
        del self.tx.notes[self._kept_notes :]
        self._writing.execute("ROLLBACK TO item")
        self._writing.execute("RELEASE item")

    def read(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        return self._reading.execute(sql, params).fetchall()

    def open_reading(self) -> SqliteReading:
        """Open another connection for reads."""
        return SqliteReading(self.path)

    def retryable(self, error: Exception) -> bool:
        """Only if another process held a lock too long: SQLite has one writer, so groups do not conflict."""
        return False

    def committed(self) -> bool | None:
        """Never asked: a commit in this process either raised or happened."""
        return False

    def is_outage(self, error: Exception) -> bool:
        """Tell whether *error* means that the store itself fails (full disk, I/O, locked), not a statement."""
        return _primary_code(error) in OUT_OF_ORDER

    def outage_words(self, error: Exception) -> str:
        """Return what it is, without the file's path."""
        return OUT_OF_ORDER[_primary_code(error)]

    def answers(self) -> bool:
        """Never asked: a file is no server."""
        return True

    def cut(self) -> None:
        """Do nothing: there is no connection to break."""

    def close(self) -> None:
        self._reading.close()
        self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._writing.close()
