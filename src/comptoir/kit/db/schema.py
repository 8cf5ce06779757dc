"""Declarations of a room's tables: names, types, key. Enough to write multi-row statements for both databases.

Migrations (Alembic) define the stored database; a test compares them with these declarations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

SQLITE_TYPES: Mapping[str, str] = {"id": "BLOB", "bytes": "BLOB", "text": "TEXT", "int": "INTEGER"}
POSTGRES_TYPES: Mapping[str, str] = {"id": "bytea", "bytes": "bytea", "text": "text", "int": "bigint"}


@dataclass(frozen=True, eq=False)
class Table:
    """A table. *columns* maps names to ``id`` (16 bytes), ``bytes``, ``text``, ``int`` (64 bits); ``?`` may be NULL."""

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    """Primary key."""
    unique: tuple[tuple[str, ...], ...] = ()
    indexes: tuple[tuple[str, ...], ...] = ()
    partial: tuple[tuple[tuple[str, ...], str], ...] = ()
    """Indexes over some rows: (columns, condition); the condition must be the same SQL on both databases."""
    wide: bool = False
    """Whether a row may be megabytes. To compare its key, SQLite copies a whole row, also that of a neighbour of the
    one that is looked for (10 ms for 15 MB), so even one row of it is read in a thread."""
    names: tuple[str, ...] = field(init=False)
    """Column names in declared order."""

    def __post_init__(self) -> None:
        for column, kind in self.columns.items():
            if kind.rstrip("?") not in SQLITE_TYPES:
                raise ValueError(f"{self.name}.{column}: unknown type {kind}")
        object.__setattr__(self, "names", tuple(self.columns))

    def cast(self, column: str) -> str:
        """Return PostgreSQL's array type for *column*, as used with unnest."""
        return POSTGRES_TYPES[self.columns[column].rstrip("?")] + "[]"


def ddl(table: Table, dialect: str) -> list[str]:
    """Return CREATE statements for *table*, for tests and tools; real databases are created by migrations."""
    types = SQLITE_TYPES if dialect == "sqlite" else POSTGRES_TYPES
    lines = [
        f"{name} {types[kind.rstrip('?')]}{'' if kind.endswith('?') else ' NOT NULL'}"
        for name, kind in table.columns.items()
    ]
    lines.append(f"PRIMARY KEY ({', '.join(table.key)})")
    tail = " WITHOUT ROWID" if dialect == "sqlite" and table.columns[table.key[0]] == "id" else ""
    made = [f"CREATE TABLE {table.name} ({', '.join(lines)}){tail}"]
    made += [
        f"CREATE UNIQUE INDEX uq_{table.name}_{'_'.join(c)} ON {table.name} ({', '.join(c)})" for c in table.unique
    ]
    made += [f"CREATE INDEX ix_{table.name}_{'_'.join(c)} ON {table.name} ({', '.join(c)})" for c in table.indexes]
    made += [
        f"CREATE INDEX ix_{table.name}_{'_'.join(c)}_partial ON {table.name} ({', '.join(c)}) WHERE {where}"
        for c, where in table.partial
    ]
    return made
