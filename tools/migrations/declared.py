"""The rooms' table declarations as SQLAlchemy metadata, which Alembic compares databases with."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from comptoir import (
    blobs,
    containers,
    events,
    hosts,
    idempotency,
    identity,
    jobs,
    ledger,
    moderation,
    nodes,
    outbox,
    receipts,
    webhooks,
)
from comptoir.kit import db
from comptoir.kit.db import Table

ROOMS = (
    identity, ledger, hosts, jobs, receipts, idempotency, nodes, containers, events, moderation, db, blobs, outbox,
    webhooks,
)  # fmt: skip
"""Every room that owns tables, and the database's own, the heads of the commit records."""

TYPES: dict[str, sa.types.TypeEngine[Any]] = {
    "id": sa.LargeBinary(),
    "bytes": sa.LargeBinary(),
    "text": sa.Text(),
    # SQLite's INTEGER has 64 bits already.
    "int": sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
}


def tables() -> list[Table]:
    """Return all tables of all rooms."""
    return [table for room in ROOMS for table in room.TABLES]


def metadata(declared: Sequence[Table] | None = None) -> sa.MetaData:
    """Return the metadata of *declared* (all tables of all rooms when not given), laid out as `kit.db.ddl` does it."""
    found = sa.MetaData()
    for table in tables() if declared is None else declared:
        _add(found, table)
    return found


def _add(found: sa.MetaData, table: Table) -> None:
    columns = [
        sa.Column(name, TYPES[kind.rstrip("?")], nullable=kind.endswith("?")) for name, kind in table.columns.items()
    ]
    # Rows found by a 16-byte id lie in the key's own tree: one look-up instead of two.
    layout: dict[str, Any] = {"sqlite_with_rowid": False} if table.columns[table.key[0]] == "id" else {}
    made = sa.Table(table.name, found, *columns, sa.PrimaryKeyConstraint(*table.key), **layout)
    for names in table.unique:
        sa.Index(f"uq_{table.name}_{'_'.join(names)}", *(made.c[name] for name in names), unique=True)
    for names in table.indexes:
        sa.Index(f"ix_{table.name}_{'_'.join(names)}", *(made.c[name] for name in names))
    for names, where in table.partial:
        sa.Index(
            f"ix_{table.name}_{'_'.join(names)}_partial",
            *(made.c[name] for name in names),
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )
