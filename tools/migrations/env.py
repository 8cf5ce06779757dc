"""Alembic's environment: what `alembic` and `make migration` compare a database with, namely the rooms'
declarations."""

from alembic import context
from sqlalchemy import create_engine
from tools.migrations.declared import metadata


def run() -> None:
    """Migrate the connection that the caller brought, or the address in alembic.ini."""
    config = context.config
    connection = config.attributes.get("connection")
    if connection is not None:
        context.configure(connection=connection, target_metadata=metadata())
        with context.begin_transaction():
            context.run_migrations()
        return
    address = config.get_main_option("sqlalchemy.url")
    assert address is not None, "alembic.ini names a database"
    with create_engine(address).connect() as opened:
        context.configure(connection=opened, target_metadata=metadata())
        with context.begin_transaction():
            context.run_migrations()


run()
