"""Reads every table of a trading post as it lies in the database, past all of our own code."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psycopg

Record = dict[str, Any]

NAMES = (
    "accounts",
    "transfers",
    "holds",
    "jobs",
    "attempts",
    "job_events",
    "answers",
    "receipts",
    "signing_keys",
    "hosts",
)


@dataclass(frozen=True)
class Piece:
    """One stored frame."""

    text: str
    tokens: int


@dataclass
class Tables:
    """Every row, by table; ids are hex."""

    rows: dict[str, list[Record]]
    by_job: dict[str, dict[str, list[Record]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, rows in self.rows.items():
            grouped = self.by_job[name] = {}
            for row in rows:
                if row.get("job_id"):
                    grouped.setdefault(row["job_id"], []).append(row)

    def of(self, name: str, job: str) -> list[Record]:
        """Return the rows of a table that belong to a job."""
        return self.by_job[name].get(job, [])

    def frames(self, job: str) -> list[Piece]:
        """Return the recorded answer."""
        stored = [row["frames"] for row in self.of("answers", job)]
        return (
            [Piece(one[0] if one else "", one[1] if len(one) > 1 else 1) for one in msgspec.msgpack.decode(stored[0])]
            if stored
            else []
        )


def read(database: str) -> Tables:
    """Read the whole database: a ``postgresql://`` address, or the path of an SQLite file."""
    if database.startswith("postgresql"):
        with psycopg.connect(database) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            return Tables({name: _records(connection.execute(f"SELECT * FROM {name}"), name) for name in NAMES})
    with closing(sqlite3.connect(Path(database))) as file:
        return Tables({name: _records(file.execute(f"SELECT * FROM {name}"), name) for name in NAMES})


def count_states(database: str) -> dict[str, int]:
    """Count the jobs by state, and by the error of those that have one."""
    sql = "SELECT CASE WHEN error_code IS NULL THEN state ELSE state || ' ' || error_code END, count(*) FROM jobs GROUP BY 1"
    if database.startswith("postgresql"):
        with psycopg.connect(database) as connection:
            return {str(state): int(count) for state, count in connection.execute(sql)}
    with closing(sqlite3.connect(Path(database))) as file:
        return dict(file.execute(sql).fetchall())


BYTES = {"answers": ("frames",), "jobs": ("body",), "receipts": ("payload", "signature"), "hosts": ("models",)}
"""Columns that are contents; all other bytes are ids, keys and hashes, and shown as hex."""


def _records(cursor: Any, table: str) -> list[Record]:
    names = [column[0] for column in cursor.description]
    contents = BYTES.get(table, ())
    return [
        {
            name: bytes(value).hex() if isinstance(value, bytes | memoryview) and name not in contents else value
            for name, value in zip(names, row, strict=True)
        }
        for row in cursor.fetchall()
    ]
