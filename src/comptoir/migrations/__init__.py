"""Migrations: written with Alembic, compiled to SQL for both databases, applied at start by `upgrade`."""

from comptoir.migrations.apply import upgrade

__all__ = ["upgrade"]
