"""Migrations: written with Alembic in tools/migrations, shipped as SQL, applied at start by `upgrade`.

Owns: table ``alembic_version``, in Alembic's own layout, so that its command line agrees about where a database stands.
Invariant: a database is at exactly one revision; each migration is one transaction; nobody runs on a newer schema than
    it knows.
Knows: no room. What the files say is checked against the rooms' declarations by tests/migrations.
"""

from comptoir.migrations.apply import DatabaseTooNew, Migration, shipped, upgrade

__all__ = ["DatabaseTooNew", "Migration", "shipped", "upgrade"]
