"""Rows that a command decides on stay as they are until its commit, also when another coordinator writes."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import psycopg
import pytest

from comptoir.kit.db import Database, Table, Tx, ddl, locking, postgres
from comptoir.kit.db.postgres import PostgresStore

PURSES = Table("purses", {"id": "id", "balance": "int"}, key=("id",))
WALLETS = Table("wallets", {"id": "id", "balance": "int"}, key=("id",))
TABLES = (PURSES, WALLETS)


def key(n: int) -> bytes:
    return n.to_bytes(16, "big")


class WatchedStore(PostgresStore):
    """Notes what is locked, table by table."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.locked: list[tuple[str, list[bytes]]] = []
        select = self.tx.select

        def watched(table: Table, columns: tuple[str, ...], keys: list[bytes], *, lock: bool = False) -> object:
            if lock:
                self.locked.append((table.name, keys))
            return select(table, columns, keys, lock=lock)

        self.tx.select = watched  # type: ignore[method-assign, assignment]


@pytest.fixture
async def store(postgres_address: str) -> WatchedStore:
    return WatchedStore(postgres_address)


@pytest.fixture
async def database(store: WatchedStore) -> AsyncIterator[Database]:
    opened = Database(store)

    def fill(tx: Tx) -> None:
        for table in TABLES:
            for statement in ddl(table, "postgresql"):
                tx.execute(statement)
            tx.insert(table, [(key(n), 10) for n in range(4)])

    await opened.run(fill)
    yield opened
    await opened.close()


def spend(tx: Tx, ids: list[bytes]) -> "list[int | Exception]":
    """Take 7 from a purse if it has as much; give what is left."""
    left = dict(tx.select(PURSES, ("id", "balance"), ids, lock=True))
    outcomes: list[int | Exception] = []
    for one in ids:
        if left[one] < 7:
            outcomes.append(LookupError("not enough"))
            continue
        left[one] -= 7
        outcomes.append(left[one])
    tx.update(PURSES, ("balance",), list(left.items()))
    return outcomes


class TestSelectLock:
    async def test_what_it_gives_is_what_the_others_left(self, database: Database, postgres_address: str) -> None:
        """Without the lock both would see 10, and spend 14 of it."""
        with psycopg.connect(postgres_address) as other:
            other.execute("SELECT 1 FROM purses WHERE id = %s FOR UPDATE", [key(1)])
            spending = asyncio.ensure_future(database.batch(spend, key(1)))
            await _until_somebody_waits(postgres_address)
            other.execute("UPDATE purses SET balance = 3 WHERE id = %s", [key(1)])
            other.commit()

        with pytest.raises(LookupError):
            await spending

    async def test_one_that_falls_silent_holds_the_others_up_for_a_bounded_time(
        self, database: Database, postgres_address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A stopped coordinator keeps its connection, and would keep its locks."""
        monkeypatch.setattr(postgres, "IDLE_IN_TRANSACTION_MS_MAX", 100)
        stopped = postgres.connect(postgres_address)
        stopped.execute("BEGIN")
        stopped.execute("SELECT 1 FROM purses WHERE id = %s FOR UPDATE", [key(1)])

        async with asyncio.timeout(20):
            assert await database.batch(spend, key(1)) == 3

        with pytest.raises(psycopg.Error), contextlib.closing(stopped):
            stopped.execute("COMMIT")

    async def test_one_that_wakes_too_late_runs_its_group_again(
        self, postgres_address: str, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres, "IDLE_IN_TRANSACTION_MS_MAX", 100)
        slow, runs = Database(PostgresStore(postgres_address)), []
        holding, awake = threading.Event(), threading.Event()

        def dozes(tx: Tx) -> "int | Exception":
            runs.append(1)
            (left,) = spend(tx, [key(1)])
            if len(runs) == 1:
                holding.set()
                assert awake.wait(10)
            return left

        dozing = slow.run(dozes)
        assert await asyncio.to_thread(holding.wait, 10)
        async with asyncio.timeout(20):
            assert await database.batch(spend, key(1)) == 3
        awake.set()

        assert isinstance(await dozing, LookupError)
        assert len(runs) == 2
        await slow.close()


class TestLocking:
    async def test_a_group_of_several_locks_all_it_needs_first_and_in_one_order(
        self, database: Database, store: WatchedStore
    ) -> None:
        @locking(lambda item: [(WALLETS, [key(3)]), (PURSES, [item])])
        def first(tx: Tx, items: list[bytes]) -> "list[int | Exception]":
            return [*map(len, items)]

        @locking(lambda item: [(PURSES, [item])])
        def second(tx: Tx, items: list[bytes]) -> "list[int | Exception]":
            return [*map(len, items)]

        await _together(
            database,
            lambda: database.batch(first, key(2)),
            lambda: database.batch(second, key(1)),
            lambda: database.run(lambda tx: 0, locks=[(PURSES, [key(0)])]),
        )

        assert store.locked == [("purses", [key(0), key(1), key(2)]), ("wallets", [key(3)])]

    async def test_a_verb_alone_locks_by_itself(self, database: Database, store: WatchedStore) -> None:
        @locking(lambda item: [(PURSES, [item])])
        def verb(tx: Tx, items: list[bytes]) -> "list[int | Exception]":
            return [*map(len, items)]

        await _together(database, lambda: database.batch(verb, key(2)), lambda: database.batch(verb, key(1)))

        assert store.locked == []

    async def test_what_went_with_a_failed_batch_is_locked_again(self, database: Database, store: WatchedStore) -> None:
        @locking(lambda item: [(PURSES, [item])])
        def fails_together(tx: Tx, items: list[bytes]) -> "list[int | Exception]":
            if len(items) > 1:
                raise LookupError
            return [len(items)]

        await _together(
            database, lambda: database.batch(fails_together, key(2)), lambda: database.batch(fails_together, key(1))
        )

        assert store.locked == [("purses", [key(1), key(2)])]


async def _together(database: Database, *asks: Callable[[], Awaitable[object]]) -> None:
    """Have all of *asks* meet in one group: they come while the writer is busy."""
    began, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def busy(tx: Tx) -> None:
        loop.call_soon_threadsafe(began.set)
        assert go.wait(10)

    keeping = database.run(busy)
    await began.wait()
    waiting = [ask() for ask in asks]
    go.set()
    await asyncio.gather(keeping, *waiting)


async def _until_somebody_waits(address: str) -> None:
    """Wait until a statement in the database waits for a lock."""
    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(address, autocommit=True) as connection:
        async with asyncio.timeout(10):
            while not connection.execute(waits).fetchall():
                await asyncio.sleep(0.01)
