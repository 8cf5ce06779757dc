"""Fixtures shared by all tests: a database of each kind, and a clock that stands still."""

import asyncio
import gc
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import hypothesis
import pytest

from comptoir.app import GC_THRESHOLDS, RECURSION_LIMIT
from comptoir.kit.clock import FakeClock
from comptoir.kit.db import Database, Table, ddl, open_database

# Each test process and the hundreds that tests start would compile all they import anew where the shell forbids to keep
# it: half of what such a start costs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that runs the tests in the background has them ignore Ctrl-C, and all that they start: here as at a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines here are noisy: an example is never too slow, only wrong.
hypothesis.settings.register_profile("comptoir", deadline=None)
# The same with many more examples, and new ones each time: see tests/machines.py.
hypothesis.settings.register_profile("long", deadline=None, max_examples=1000)
# For who only wants to know whether it fails: the steps that did are not made fewer first.
hypothesis.settings.register_profile("unshrunk", deadline=None, phases=[hypothesis.Phase.generate])
hypothesis.settings.load_profile("comptoir")

pytest_plugins = [
    # Those that others import come first.
    "tests.leftovers",
    "tests.servers",
    "tests.budget",
    "tests.infernet_client.client",
    "tests.offline",
    "tests.order",
    "tests.programs",
    "tests.redis_server",
    "tests.s3_server",
]


def pytest_collection_finish() -> None:
    """Leave what is loaded by now alone, and look for garbage as seldom as a coordinator does: 5 % of a run's CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


class _Hasty:
    """The module asyncio for uvicorn's server, which looks every 0.1 s whether its connections are gone: here every
    millisecond."""

    def __getattr__(self, name: str) -> object:
        return getattr(asyncio, name)

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(min(delay, 0.001))


@pytest.fixture(scope="session", autouse=True)
def hasty_uvicorn() -> Iterator[None]:
    """Have the trading posts of tests, over a thousand, stop as soon as they can."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uvicorn.server.asyncio", _Hasty())
        yield


@pytest.fixture(autouse=True)
def recursion_limit() -> None:
    """Give each test the coordinator's limit: eth-account, which some import, raises it beyond what the stack holds."""
    sys.setrecursionlimit(RECURSION_LIMIT)


@pytest.fixture
def place(run_folder: Path) -> Iterator[Path]:
    """Give a folder, not there yet, for parts of a cluster: none of pytest's, which PostgreSQL could not reach when run
    as root."""
    with tempfile.TemporaryDirectory(prefix="place-", dir=run_folder) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "data"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the address of an empty database, once of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "comptoir.db")
    address: str = request.getfixturevalue("postgres_address")
    return address


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
