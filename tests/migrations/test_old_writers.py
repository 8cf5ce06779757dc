"""Who knows only an older schema goes on writing: during an upgrade, old and new coordinators share the database.

The rules that make it so are tests/house/test_expand.py.
"""

import os
from collections.abc import AsyncIterator

import pytest

from comptoir.kit.db import Database, Tx, open_database
from comptoir.migrations import Migration, shipped, upgrade


@pytest.fixture
async def database(database_address: str) -> AsyncIterator[Database]:
    opened = open_database(database_address)
    yield opened
    await opened.close()


POSTGRES_COLUMNS = """
SELECT table_name, column_name, data_type FROM information_schema.columns
WHERE table_schema = 'public' AND table_name <> 'alembic_version' ORDER BY table_name, ordinal_position
"""


async def known_columns(db: Database) -> dict[str, list[tuple[str, str]]]:
    """Return (column, type) of every table, as a coordinator of this moment knows them."""
    found: dict[str, list[tuple[str, str]]] = {}
    if db.dialect == "postgresql":
        for table, column, kind in await db.fetch(POSTGRES_COLUMNS):
            found.setdefault(table, []).append((column, kind))
        return found
    for (table,) in await db.fetch("SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'alembic_version'"):
        found[table] = [(row[1], row[2]) for row in await db.fetch(f"PRAGMA table_info({table})")]
    return found


def some(kind: str) -> bytes | str | int:
    """Return a value of a column's type that no other row has."""
    if kind.lower() in ("blob", "bytea"):
        return os.urandom(16)
    return os.urandom(8).hex() if kind.lower() == "text" else int.from_bytes(os.urandom(4))


def write_as_before(tx: Tx, known: dict[str, list[tuple[str, str]]]) -> list[str]:
    """Insert a row into every table, naming only the columns of *known*; return the tables that refused."""
    refused = []
    for table, columns in known.items():
        names = ", ".join(name for name, _ in columns)
        marks = ", ".join("?" for _ in columns)
        tx.execute("SAVEPOINT old_writer")
        try:
            tx.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", [some(kind) for _, kind in columns])
        except Exception as error:  # Whatever the database says, for either driver: it is what the test is about.
            refused.append(f"{table}: {error}")
            tx.execute("ROLLBACK TO SAVEPOINT old_writer")
    return refused


class TestOldWriters:
    @pytest.mark.parametrize("position", range(1, len(shipped("sqlite"))))
    async def test_who_knows_an_older_schema_still_writes_every_table(self, database: Database, position: int) -> None:
        """Each schema that was ever the newest, against the newest of today."""
        migrations = shipped(database.dialect)
        await upgrade(database, migrations[:position])
        known = await known_columns(database)

        await upgrade(database)
        assert await database.run(lambda tx: write_as_before(tx, known)) == []

        assert len(known) > 10
        assert (await database.fetch("SELECT count(*) FROM jobs"))[0][0] == 1

    async def test_a_mandatory_column_would_be_noticed(self, database: Database) -> None:
        await upgrade(database)
        known = await known_columns(database)
        stricter = Migration("9999", "9999_stricter", ("ALTER TABLE jobs ADD COLUMN extra TEXT DEFAULT 'x' NOT NULL",))
        await upgrade(database, [*shipped(database.dialect), stricter])

        assert await database.run(lambda tx: write_as_before(tx, known)) == [], "a default is good enough"
        broken = {**known, "jobs": [one for one in known["jobs"] if one[0] != "owner_id"]}
        refused = await database.run(lambda tx: write_as_before(tx, broken))

        assert [one.partition(":")[0] for one in refused] == ["jobs"]
