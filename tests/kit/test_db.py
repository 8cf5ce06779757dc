"""The writer: group commit, savepoints, batches, the same on SQLite and PostgreSQL."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator

import pytest

from comptoir.kit.db import Database, Fetch, Table, Tx
from tests.conftest import MakeDatabase

THINGS = Table(
    "things", {"id": "id", "name": "text", "count": "int", "note": "text?"}, key=("id",), unique=(("name",),)
)


def key(n: int) -> bytes:
    return n.to_bytes(16, "big")


@pytest.fixture
async def database(make_database: MakeDatabase) -> AsyncIterator[Database]:
    async with make_database([THINGS]) as opened:
        yield opened


class TestRun:
    async def test_a_command_is_readable_once_it_returns(self, database: Database) -> None:
        await database.run(lambda tx: tx.insert(THINGS, [(key(1), "a", 5, None)]))

        assert await database.fetch("SELECT name, count, note FROM things WHERE id = ?", [key(1)]) == [("a", 5, None)]

    async def test_a_failing_command_leaves_its_neighbours_whole(self, database: Database) -> None:
        def bad(tx: Tx) -> None:
            tx.insert(THINGS, [(key(9), "half", 1, None)])
            raise LookupError("no")

        good = [database.run(lambda tx, n=n: tx.insert(THINGS, [(key(n), str(n), 1, None)])) for n in range(3)]
        failing = database.run(bad)

        with pytest.raises(LookupError):
            await failing
        assert await asyncio.gather(*good) == [1, 1, 1]
        assert await database.fetch("SELECT count(*) FROM things") == [(3,)]

    async def test_a_statement_that_makes_no_sense_leaves_its_neighbours_whole(self, database: Database) -> None:
        good = database.run(lambda tx: tx.insert(THINGS, [(key(1), "a", 1, None)]))
        failing = database.run(lambda tx: tx.execute("UPDATE nowhere SET a = 1"))

        outcomes = await asyncio.gather(good, failing, return_exceptions=True)

        assert outcomes[0] == 1
        assert "nowhere" in str(outcomes[1])

    async def test_commands_that_wait_share_a_commit(self, database: Database) -> None:
        await database.run(lambda tx: None)
        before = database.stats.commits

        await asyncio.gather(*(database.run(lambda tx: None) for _ in range(200)))

        assert database.stats.commits - before < 100


class TestMultiRow:
    async def test_update_add_and_select_touch_the_keys_given(self, database: Database) -> None:
        def work(tx: Tx) -> tuple[int, int, list[tuple[object, ...]]]:
            tx.insert(THINGS, [(key(n), f"n{n}", n, None) for n in range(37)])
            updated = tx.update(THINGS, ("note", "count"), [(key(n), "seen", 100) for n in range(5)])
            added = tx.add(THINGS, ("count",), [(key(n), -n) for n in range(37)])
            return updated, added, tx.select(THINGS, ("name", "count", "note"), [key(n) for n in (0, 3, 36, 99)])

        updated, added, rows = await database.run(work)

        assert (updated, added) == (5, 37)
        assert sorted(rows) == [("n0", 100, "seen"), ("n3", 97, "seen"), ("n36", 0, None)]

    async def test_conflicts_can_be_ignored_and_counted(self, database: Database) -> None:
        await database.run(lambda tx: tx.insert(THINGS, [(key(1), "a", 1, None)]))

        rows = [(key(1), "a", 1, None), (key(2), "b", 1, None)]
        assert await database.run(lambda tx: tx.insert(THINGS, rows, ignore_conflicts=True)) == 1


class TestBoundValues:
    @pytest.mark.parametrize("value", [b"bytes", None])
    def test_sqlite_does_not_look_for_who_adapts_what_is_stored_as_it_is(self, value: bytes | None) -> None:
        """It looks in vain, by way of an exception, for each of sixty values of a job."""
        adapt = sqlite3.adapters[type(value), sqlite3.PrepareProtocol]

        assert adapt(value) is value


def insert_things(tx: Tx, items: list[int]) -> "list[int | Exception]":
    tx.insert(THINGS, [(key(n), f"n{n % 50}", n, None) for n in items])
    return [ValueError("unlucky") if n == 13 else n for n in items]


class TestBatch:
    async def test_items_resolve_one_by_one(self, database: Database) -> None:
        futures = [database.batch(insert_things, n) for n in range(20)]

        outcomes = await asyncio.gather(*futures, return_exceptions=True)

        assert isinstance(outcomes[13], ValueError)
        assert [o for o in outcomes if isinstance(o, int)] == [n for n in range(20) if n != 13]

    async def test_one_bad_item_does_not_poison_the_batch(self, database: Database) -> None:
        # 51 repeats the unique name of 1, so the multi-row statement as a whole fails.
        futures = [database.batch(insert_things, n) for n in (1, 51, 2)]

        outcomes = await asyncio.gather(*futures, return_exceptions=True)

        assert outcomes[0] == 1
        assert isinstance(outcomes[1], Exception)
        assert outcomes[2] == 2
        assert await database.fetch("SELECT count(*) FROM things") == [(2,)]


class TestSurvey:
    async def test_all_its_queries_see_one_moment_and_nobody_waits_for_it(self, database: Database) -> None:
        began, written = threading.Event(), threading.Event()

        def look(fetch: Fetch) -> list[int]:
            found = [fetch("SELECT count(*) FROM things")[0][0]]
            began.set()
            assert written.wait(10)
            return [*found, fetch("SELECT count(*) FROM things")[0][0]]

        survey = asyncio.create_task(database.read_snapshot(look))
        assert await asyncio.to_thread(began.wait, 10)
        await database.run(lambda tx: tx.insert(THINGS, [(key(1), "a", 1, None)]))
        written.set()

        assert await survey == [0, 0]
        assert await database.fetch("SELECT count(*) FROM things") == [(1,)]

    async def test_it_writes_nothing(self, database: Database) -> None:
        await database.run(lambda tx: tx.insert(THINGS, [(key(1), "a", 1, None)]))

        with pytest.raises(Exception, match=r"read-only|out of reach"):
            await database.read_snapshot(lambda fetch: fetch("DELETE FROM things"))

        assert await database.fetch("SELECT count(*) FROM things") == [(1,)]


class TestTurns:
    async def test_verbs_that_meet_in_a_group_run_in_their_order(self, database: Database) -> None:
        ran: list[str] = []

        def early(tx: Tx, items: list[int]) -> "list[int | Exception]":
            ran.append("early")
            return [*items]

        def late(tx: Tx, items: list[int]) -> "list[int | Exception]":
            ran.append("late")
            return [*items]

        began, hold = threading.Event(), threading.Event()

        def keep_the_writer(tx: Tx) -> None:
            began.set()
            assert hold.wait(10)

        keeping = database.run(keep_the_writer)
        assert await asyncio.to_thread(began.wait, 10)
        waiting = [database.batch(late, 1, turn=2), database.batch(early, 2, turn=1)]
        hold.set()
        await asyncio.gather(keeping, *waiting)

        assert ran == ["early", "late"]
