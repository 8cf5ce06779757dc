"""The transaction that a command gets, and the SQL of its multi-row methods on each database."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

from comptoir.kit.db.schema import Table

Row = tuple[Any, ...]


class Tx(Protocol):
    """One open transaction in the writer thread. Placeholders are ``?`` on both databases."""

    dialect: str
    """``sqlite`` or ``postgresql``."""

    notes: list[bytes]
    """What the commit will confirm to somebody outside, for the commit record: commands append at most
    `heads.NOTE_BYTES_MAX` bytes each. A command that is undone takes its notes with it."""

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one statement; return the number of rows it touched."""
        ...

    def fetch(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run one query; return all its rows."""
        ...

    def insert(
        self,
        table: Table,
        rows: Sequence[Row],
        *,
        columns: tuple[str, ...] | None = None,
        ignore_conflicts: bool = False,
    ) -> int:
        """Insert *rows* (all columns in declared order unless *columns*); return how many were new."""
        ...

    def update(self, table: Table, columns: tuple[str, ...], rows: Sequence[Row]) -> int:
        """Set *columns* by primary key; a row is the key followed by the values. Return the rows touched."""
        ...

    def add(self, table: Table, columns: tuple[str, ...], rows: Sequence[Row]) -> int:
        """Like `update`, but adds the values (negative subtracts; NULL counts as 0). Keys must be unique."""
        ...

    def select(
        self, table: Table, columns: tuple[str, ...], keys: Sequence[Any], *, by: str | None = None, lock: bool = False
    ) -> list[Row]:
        """Return *columns* of the rows whose key (or column *by*) is in *keys*, in no order.

        *lock* keeps other coordinators from changing or locking them until the commit; rows are locked in the order of
        their keys. On SQLite it has no effect: the writer has the whole database to itself.
        """
        ...


# -- SQLite ------------------------------------------------------------------------------------------------------

ROWS_PER_STATEMENT_MAX = 256
"""Rows of one multi-row statement; with at most 32 columns it stays below SQLite's 32,766 variables."""


@lru_cache(maxsize=4096)
def statement_sizes(count: int) -> tuple[int, ...]:
    """Split *count* rows over statements of 1 to 8, 10, 12, 14, 16, 20, … rows (37 -> 32, 5): three leading bits each.

    So at most 28 distinct statements are prepared, and a group of up to 64 rows takes at most two statements, against
    six with powers of two.
    """
    sizes = [ROWS_PER_STATEMENT_MAX] * (count // ROWS_PER_STATEMENT_MAX)
    rest = count % ROWS_PER_STATEMENT_MAX
    while rest:
        bits_left = max(0, rest.bit_length() - 3)
        sizes.append(rest >> bits_left << bits_left)
        rest -= sizes[-1]
    return tuple(sizes)


@lru_cache(maxsize=4096)
def sqlite_insert(table: Table, columns: tuple[str, ...], count: int, ignore: bool) -> str:
    """Return a multi-row INSERT of *count* rows."""
    values = ",".join(["(" + ",".join("?" * len(columns)) + ")"] * count)
    tail = " ON CONFLICT DO NOTHING" if ignore else ""
    return f"INSERT INTO {table.name} ({','.join(columns)}) VALUES {values}{tail}"


def _before(table: Table, name: str) -> str:
    """Return the SQL of the value that is added to."""
    column = f"{table.name}.{name}"
    return f"COALESCE({column},0)+" if table.columns[name].endswith("?") else f"{column}+"


@lru_cache(maxsize=4096)
def sqlite_update(table: Table, columns: tuple[str, ...], count: int, adding: bool) -> str:
    """Return a multi-row UPDATE by primary key of *count* rows."""
    width = len(table.key) + len(columns)
    first = len(table.key) + 1
    sets = ",".join(
        f"{name}={_before(table, name) if adding else ''}v.column{first + i}" for i, name in enumerate(columns)
    )
    where = " AND ".join(f"{table.name}.{name}=v.column{i + 1}" for i, name in enumerate(table.key))
    if count == 1:
        sets = ",".join(
            f"{name}={_before(table, name) if adding else ''}?{first + i}" for i, name in enumerate(columns)
        )
        where = " AND ".join(f"{name}=?{i + 1}" for i, name in enumerate(table.key))
        return f"UPDATE {table.name} SET {sets} WHERE {where}"
    values = ",".join(["(" + ",".join("?" * width) + ")"] * count)
    return f"UPDATE {table.name} SET {sets} FROM (VALUES {values}) AS v WHERE {where}"


@lru_cache(maxsize=4096)
def sqlite_select(table: Table, columns: tuple[str, ...], by: str, count: int) -> str:
    """Return a SELECT by *count* keys."""
    return f"SELECT {','.join(columns)} FROM {table.name} WHERE {by} IN ({','.join('?' * count)})"


# -- PostgreSQL --------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def placeholders_percent(sql: str) -> str:
    """Turn ``?`` placeholders into psycopg's ``%s``; our SQL has no literal question mark or percent sign."""
    assert "%" not in sql
    return sql.replace("?", "%s")


@lru_cache(maxsize=512)
def postgres_insert(table: Table, columns: tuple[str, ...], ignore: bool) -> str:
    """Return an INSERT of any number of rows, with one array parameter per column."""
    arrays = ",".join(f"%s::{table.cast(name)}" for name in columns)
    tail = " ON CONFLICT DO NOTHING" if ignore else ""
    return f"INSERT INTO {table.name} ({','.join(columns)}) SELECT * FROM unnest({arrays}){tail}"


@lru_cache(maxsize=512)
def postgres_update(table: Table, columns: tuple[str, ...], adding: bool) -> str:
    """Return an UPDATE by primary key of any number of rows."""
    names = table.key + columns
    arrays = ",".join(f"%s::{table.cast(name)}" for name in names)
    sets = ",".join(f"{name}={_before(table, name) if adding else ''}v.{name}" for name in columns)
    where = " AND ".join(f"{table.name}.{name}=v.{name}" for name in table.key)
    return f"UPDATE {table.name} SET {sets} FROM unnest({arrays}) AS v({','.join(names)}) WHERE {where}"


@lru_cache(maxsize=512)
def postgres_select(table: Table, columns: tuple[str, ...], by: str, lock: bool) -> str:
    """Return a SELECT by any number of keys; a locking one takes its rows in the order of *by*."""
    tail = f" ORDER BY {by} FOR UPDATE" if lock else ""
    return f"SELECT {','.join(columns)} FROM {table.name} WHERE {by} = ANY(%s::{table.cast(by)}){tail}"
