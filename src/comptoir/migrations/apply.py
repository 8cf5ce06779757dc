"""Apply the migrations that a database lacks, in order, however many coordinators start at once."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources

from comptoir.kit.db import Database, Tx
from comptoir.kit.errors import Refusal

log = logging.getLogger(__name__)

HAS_VERSION_TABLE = {
    "sqlite": "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'",
    "postgresql": "SELECT CASE WHEN to_regclass('alembic_version') IS NULL THEN 0 ELSE 1 END",
}
CREATE_VERSION_TABLE = (
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
    "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
)
VERSION = "SELECT version_num FROM alembic_version"

POSTGRES_LOCK = "SELECT pg_advisory_xact_lock(7164780238601)"
"""One number for all coordinators of a database, held until the transaction ends. SQLite needs none."""


class DatabaseTooNew(Refusal):
    """The database stands at a revision that this version does not know."""

    def __init__(self, *, stands_at: str, known: str) -> None:
        super().__init__(
            f"the database is at revision {stands_at} and this version of Comptoir knows revisions up to {known}: "
            "start the newer version that was here before, or another data folder"
        )
        self.stands_at = stands_at
        self.known = known


@dataclass(frozen=True)
class Migration:
    """One step of the schema."""

    revision: str
    """Alembic's id, four digits."""
    name: str
    """File name without its ending."""
    statements: tuple[str, ...]


@cache
def shipped(dialect: str) -> tuple[Migration, ...]:
    """Return the migrations for ``sqlite`` or ``postgresql``, oldest first."""
    folder = resources.files("comptoir.migrations") / "sql" / dialect
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return tuple(
        Migration(file.name.partition("_")[0], file.name.removesuffix(".sql"), statements(file.read_text("utf-8")))
        for file in files
    )


def statements(text: str) -> tuple[str, ...]:
    """Split a compiled file: a statement ends with a semicolon at the end of a line; lines with ``--`` are comments."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    return tuple(part.strip() for part in (code + "\n").split(";\n") if part.strip())


async def upgrade(db: Database, migrations: Sequence[Migration] | None = None) -> int:
    """Bring *db* up to the newest of *migrations* (those shipped); return how many were applied.

    Safe when several coordinators start on one database: each migration is applied by one of them. Costs two queries
    when there is nothing to do.

    Raises:
        DatabaseTooNew: it stands at a revision that *migrations* does not hold; nothing is written.
        Unavailable: the database is out of reach.
    """
    known = shipped(db.dialect) if migrations is None else migrations
    ((found,),) = await db.fetch(HAS_VERSION_TABLE[db.dialect])
    rows = await db.fetch(VERSION) if found else []
    applied = 0
    for position in range(_position(known, rows[0][0] if rows else ""), len(known)):
        if await db.run(partial(_step, known=known, position=position)):
            # Nobody who starts on an empty database asks for its history.
            log.log(logging.INFO if rows else logging.DEBUG, "migration %s applied", known[position].name)
            applied += 1
    if applied and not rows:
        log.info("the database is new: %d migrations applied", applied)
    return applied


def _position(known: Sequence[Migration], stands_at: str) -> int:
    """Return how many of *known* the database has."""
    if not stands_at:
        return 0
    for number, migration in enumerate(known, start=1):
        if migration.revision == stands_at:
            return number
    raise DatabaseTooNew(stands_at=stands_at, known=known[-1].revision if known else "none")


def _step(tx: Tx, *, known: Sequence[Migration], position: int) -> bool:
    """Apply one migration unless another coordinator has; everything is looked at again under the lock."""
    if tx.dialect == "postgresql":
        tx.fetch(POSTGRES_LOCK)
    ((found,),) = tx.fetch(HAS_VERSION_TABLE[tx.dialect])
    if not found:
        tx.execute(CREATE_VERSION_TABLE)
    rows = tx.fetch(VERSION)
    if _position(known, rows[0][0] if rows else "") > position:
        return False
    for statement in known[position].statements:
        tx.execute(statement)
    put = (
        "UPDATE alembic_version SET version_num = ?" if rows else "INSERT INTO alembic_version (version_num) VALUES (?)"
    )
    tx.execute(put, (known[position].revision,))
    return True
