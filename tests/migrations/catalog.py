"""What a database says about its own tables, in a form in which two databases of one kind can be compared."""

from typing import Any

from comptoir.kit.db import Database

VERSION_TABLE = "alembic_version"

POSTGRES_COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, ordinal_position FROM information_schema.columns
WHERE table_schema = 'public' AND table_name <> 'alembic_version'
"""
POSTGRES_INDEXES = """
SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
"""

Catalog = set[tuple[Any, ...]]


async def catalog(db: Database) -> Catalog:
    """Return every column (type, nullability, place), key, index and table layout."""
    if db.dialect == "postgresql":
        columns = {("column", *row) for row in await db.fetch(POSTGRES_COLUMNS)}
        return columns | {("index", *row) for row in await db.fetch(POSTGRES_INDEXES)}
    found: Catalog = set()
    for _, name, kind, _, without_rowid, _ in await db.fetch("PRAGMA table_list"):
        if kind != "table" or name.startswith("sqlite_") or name == VERSION_TABLE:
            continue
        found.add(("table", name, "WITHOUT ROWID" if without_rowid else "rowid"))
        for place, column, type_, not_null, default, key in await db.fetch(f"PRAGMA table_info({name})"):
            found.add(("column", name, place, column, type_, not_null, default, key))
        found |= await _sqlite_indexes(db, name)
    return found


async def _sqlite_indexes(db: Database, table: str) -> Catalog:
    found: Catalog = set()
    for _, index, unique, origin, partial in await db.fetch(f"PRAGMA index_list({table})"):
        columns = tuple(row[2] for row in await db.fetch(f"PRAGMA index_info({index})"))
        ((sql,),) = await db.fetch("SELECT coalesce(sql, '') FROM sqlite_master WHERE name = ?", [index]) or [("",)]
        condition = sql.partition(" WHERE ")[2]
        found.add(("index", table, index, unique, origin, partial, columns, condition))
    return found
