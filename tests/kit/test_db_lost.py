"""PostgreSQL goes away, comes back, and swallows the answer to a COMMIT: nothing is lost and nothing is done twice."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest

from comptoir.kit.db import Database, Table, Tx, ddl, engine
from comptoir.kit.db.heads import HeadMove
from comptoir.kit.db.postgres import PostgresStore
from comptoir.kit.errors import Unavailable
from tests.at_once import at_once
from tests.kit.cutting import CuttingStore, cut
from tests.servers import OwnServer

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
async def away(own_server: OwnServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """A database whose server the test may stop."""
    monkeypatch.setattr(engine, "ANSWER_S", 0.5)
    monkeypatch.setattr(engine, "WATCH_S", 0.1)
    opened = Database(PostgresStore(own_server.url))
    for statement in ddl(MARKS, "postgresql"):
        await opened.run(lambda tx, s=statement: tx.execute(s))
    await count(opened)
    yield opened
    await opened.close()


async def until_away(database: Database) -> None:
    async with asyncio.timeout(20):
        while not database.unavailable:
            await asyncio.sleep(0.01)


async def refused_at_once(database: Database) -> None:
    """Commands, batches, reads and surveys alike."""
    async with at_once():
        for ask in (
            database.run(Mark()),
            database.batch(lambda tx, items: [1 for _ in items], 1),
            count(database),
            database.read_snapshot(lambda fetch: fetch("SELECT 1")),
        ):
            with pytest.raises(Unavailable):
                await ask


class TestStoppedServer:
    @pytest.fixture(autouse=True)
    def _quiet(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.CRITICAL)

    async def test_callers_are_refused_at_once_until_it_is_back(self, away: Database, own_server: OwnServer) -> None:
        own_server.stop()
        with pytest.raises(Unavailable):
            await away.run(Mark())
        await refused_at_once(away)

        own_server.start()
        async with asyncio.timeout(20):
            await away.wait_available()

        assert await away.run(Mark()) == 0
        assert await count(away) == 1

    async def test_a_read_that_fails_has_the_writer_look(self, away: Database, own_server: OwnServer) -> None:
        own_server.kill()
        with pytest.raises(Unavailable):
            await count(away)

        await until_away(away)
        await refused_at_once(away)
        own_server.start()
        async with asyncio.timeout(20):
            await away.wait_available()
        assert await count(away) == 0

    async def test_what_waits_in_line_is_refused_too(self, away: Database, own_server: OwnServer) -> None:
        began, go = threading.Event(), threading.Event()

        def busy(tx: Tx) -> None:
            began.set()
            assert go.wait(10)
            tx.fetch("SELECT 1")

        asked = [away.run(busy)]
        assert await asyncio.to_thread(began.wait, 10)
        asked += [away.run(Mark()) for _ in range(3)]
        own_server.kill()
        go.set()

        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {Unavailable}

    async def test_closing_needs_no_server(self, away: Database, own_server: OwnServer) -> None:
        own_server.kill()
        with pytest.raises(Unavailable):
            await away.run(Mark())

        async with asyncio.timeout(20):
            await away.close()


class TestFrozenServer:
    """Connections stay open, nothing answers: only a clock can tell."""

    @pytest.fixture(autouse=True)
    def _quiet(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.CRITICAL)

    async def test_callers_are_refused_and_a_group_that_was_not_committed_is_too(
        self, away: Database, own_server: OwnServer
    ) -> None:
        own_server.freeze()
        asked = away.run(Mark())
        await until_away(away)
        await refused_at_once(away)

        async with asyncio.timeout(20):
            with pytest.raises(Unavailable):
                await asked

        own_server.thaw()
        async with asyncio.timeout(20):
            await away.wait_available()
        assert await away.run(Mark()) == 0

    async def test_a_read_ends_within_a_bound(self, away: Database, own_server: OwnServer) -> None:
        own_server.freeze()

        async with asyncio.timeout(20):
            with pytest.raises(Unavailable):
                await count(away)

        own_server.thaw()
        async with asyncio.timeout(20):
            await away.wait_available()
            while not await _counted(away):
                await asyncio.sleep(0.05)

    async def test_a_commit_under_way_is_asked_for_until_it_is_known(
        self, own_server: OwnServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its callers wait, and hear what happened; all others are refused at once."""
        monkeypatch.setattr(engine, "ANSWER_S", 0.5)
        monkeypatch.setattr(engine, "WATCH_S", 0.1)
        store = FreezingStore(own_server.url)
        database = Database(store)
        for statement in ddl(MARKS, "postgresql"):
            await database.run(lambda tx, s=statement: tx.execute(s))
        mark = Mark()
        store.freeze = own_server.freeze

        asked = database.run(mark)
        await until_away(database)
        await refused_at_once(database)
        assert not asked.done()

        own_server.thaw()
        async with asyncio.timeout(30):
            assert await asked == 0
            await database.wait_available()
        assert await count(database) == 1
        await database.close()


class FreezingStore(PostgresStore):
    """Freezes its server with the next COMMIT."""

    freeze: Callable[[], None] | None = None

    def commit(self, move: HeadMove | None = None) -> None:
        if self.freeze is not None:
            self.freeze()
            self.freeze = None
        super().commit(move)


async def _counted(database: Database) -> bool:
    try:
        await count(database)
    except Unavailable:
        return False
    return True


class TestSlowGroup:
    async def test_a_server_that_lives_is_waited_for(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        """A long migration, or rows that somebody else holds: new commands are refused, this one is not broken off."""
        monkeypatch.setattr(engine, "ANSWER_S", 0.2)
        monkeypatch.setattr(engine, "WATCH_S", 0.05)

        slow = database.run(lambda tx: tx.fetch("SELECT pg_sleep(1.5)"))
        await until_away(database)

        with pytest.raises(Unavailable):
            await database.run(Mark())
        await slow
        assert not database.unavailable
        assert await database.run(Mark()) == 0


class TestCrash:
    async def test_another_transaction_is_not_taken_for_a_lost_one(
        self, own_server: OwnServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """After a crash PostgreSQL gives the numbers of transactions that left no trace to new ones."""
        caplog.set_level(logging.CRITICAL)
        store = KillingStore(own_server.url)
        database = Database(store)
        for statement in ddl(MARKS, "postgresql"):
            await database.run(lambda tx, s=statement: tx.execute(s))
        mark = Mark()
        store.server = own_server

        async with asyncio.timeout(30):
            assert await database.run(mark) == 0
            await database.wait_available()

        assert mark.runs == 2
        assert await count(database) == 1
        await database.close()


class KillingStore(PostgresStore):
    """Kills its server before the next COMMIT, and has many others write as soon as it is back."""

    server: OwnServer | None = None

    def commit(self, move: HeadMove | None = None) -> None:
        if self.server is not None:
            server, self.server = self.server, None
            server.kill()
            server.start()
            with psycopg.connect(server.url, autocommit=True) as other:
                for _ in range(50):
                    other.execute("SELECT pg_current_xact_id()")
        super().commit(move)
