"""Take a database back to an earlier moment, as a backup or a standby does that lacks the last commits; on either."""

import importlib
import pkgutil
from typing import Any

import comptoir
from comptoir.kit.db import COMMIT_HEADS, Database, Table, Tx

Snapshot = dict[Table, list[tuple[Any, ...]]]


def tables() -> list[Table]:
    """Return every table of every room."""
    found: list[Table] = []
    for each in pkgutil.iter_modules(comptoir.__path__, "comptoir."):
        if each.ispkg and importlib.util.find_spec(f"{each.name}.tables") is not None:
            found += importlib.import_module(f"{each.name}.tables").TABLES
    return found


async def snapshot(db: Database, *, with_heads: bool = False) -> Snapshot:
    """Return all rows there are; with the heads of commit records, a rewind is noticed."""
    every = [*tables(), COMMIT_HEADS] if with_heads else tables()
    return {table: await db.fetch(f"SELECT {','.join(table.names)} FROM {table.name}") for table in every}


async def rewind(db: Database, to: Snapshot) -> None:
    """Put these rows in place of all there are."""

    def command(tx: Tx) -> None:
        for table, rows in to.items():
            tx.execute(f"DELETE FROM {table.name}")
            if rows:
                tx.insert(table, rows)

    await db.run(command)
