"""Reads that take long: off the event loop, in turns, bounded in number and time, and given up with their caller."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from comptoir.kit.db import Database, Fetch, Table, readers
from comptoir.kit.errors import Unavailable
from tests.conftest import MakeDatabase

THINGS = Table("things", {"id": "id", "name": "text", "note": "text?"}, key=("id",), unique=(("name",),))
WIDE = replace(THINGS, wide=True)
HANGS_S = 20.0
"""What waits for a slow read here waits for ever."""

ANN, BOB = b"a" * 16, b"b" * 16

FOR_EVER = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "postgresql": "SELECT pg_sleep(600)",
}


@pytest.fixture
async def database(make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    monkeypatch.setattr(readers, "REST_FACTOR", 0)
    async with make_database([THINGS]) as opened:
        yield opened


class Slow:
    """A read that ends when it is told to."""

    def __init__(self, database: Database, of: bytes | None) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        self.task = asyncio.ensure_future(database.fetch_snapshot(self._look, of=of))

    def _look(self, fetch: Fetch) -> str:
        self.began.set()
        assert self.go.wait(20)
        return threading.current_thread().name

    async def begun(self) -> "Slow":
        """Return it once it has a thread."""
        assert await asyncio.to_thread(self.began.wait, 20)
        return self

    async def end(self) -> str:
        """Let it end; return the name of its thread."""
        self.go.set()
        return await self.task


class TestTurns:
    async def test_no_list_runs_in_the_event_loop(self, database: Database) -> None:
        slow = await Slow(database, ANN).begun()

        async with asyncio.timeout(HANGS_S):  # The loop goes on, and points are read beside it.
            assert await database.fetch_point(THINGS, ("id",), (ANN,)) is None
        assert (await slow.end()).startswith("comptoir-lists")

    async def test_a_slow_list_holds_up_only_the_next_of_its_caller(self, database: Database) -> None:
        slow = await Slow(database, ANN).begun()
        second = asyncio.ensure_future(database.fetch("SELECT 2", of=ANN))

        async with asyncio.timeout(HANGS_S):
            assert await database.fetch("SELECT 1", of=BOB) == [(1,)]
            assert await database.fetch("SELECT 1") == [(1,)]
        assert not second.done()
        await slow.end()
        assert await second == [(2,)]

    async def test_those_on_nobodys_behalf_leave_a_thread_to_callers(self, database: Database) -> None:
        slow = [Slow(database, None) for _ in range(readers.READERS_MAX + 1)]
        for one in slow[: readers.READERS_OF_NOBODY_MAX]:
            await one.begun()

        async with asyncio.timeout(HANGS_S):
            assert await database.fetch("SELECT 1", of=ANN) == [(1,)]
        assert [one.began.is_set() for one in slow].count(True) == readers.READERS_OF_NOBODY_MAX
        await asyncio.gather(*(one.end() for one in slow))

    async def test_callers_take_turns(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        slow = [await Slow(database, bytes([n]) * 16).begun() for n in range(readers.READERS_MAX)]
        ended: list[str] = []

        async def read(name: str, of: bytes) -> None:
            await database.fetch("SELECT 1", of=of)
            ended.append(name)

        waiting = [asyncio.ensure_future(read(f"ann {n}", ANN)) for n in range(3)]
        waiting.append(asyncio.ensure_future(read("bob 0", BOB)))
        while database._lists.waiting < 4:
            await asyncio.sleep(0)
        await slow[0].end()
        await asyncio.gather(*waiting)

        assert ended.index("bob 0") <= 1
        await asyncio.gather(*(one.end() for one in slow[1:]))

    async def test_too_many_are_refused(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(readers, "READS_WAITING_OF_ONE_MAX", 2)
        slow = await Slow(database, ANN).begun()
        waiting = [asyncio.ensure_future(database.fetch("SELECT 1", of=ANN)) for _ in range(2)]
        while database._lists.waiting < 2:
            await asyncio.sleep(0)

        with pytest.raises(Unavailable, match="try again"):
            await database.fetch("SELECT 1", of=ANN)
        assert await database.fetch("SELECT 1", of=BOB) == [(1,)]
        await slow.end()
        assert await asyncio.gather(*waiting) == [[(1,)]] * 2

    async def test_who_reads_without_pause_has_only_part_of_a_thread(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(readers, "REST_FACTOR", 1e9)
        monkeypatch.setattr(readers, "REST_S_MAX", 0.02)
        loop = asyncio.get_running_loop()
        began = loop.time()

        for _ in range(6):
            await database.fetch("SELECT 1", of=ANN)

        assert loop.time() - began >= 5 * 0.018


class TestGivingUp:
    async def until_free(self, database: Database) -> None:
        while database._lists.running or database._lists.waiting:
            await asyncio.sleep(0.001)

    async def test_what_runs_for_somebody_gone_is_interrupted(self, database: Database) -> None:
        for of in (ANN, ANN, None):
            reading = asyncio.ensure_future(database.fetch(FOR_EVER[database.dialect], of=of))
            while not database._lists.running:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.02)

            reading.cancel()
            async with asyncio.timeout(HANGS_S):
                await self.until_free(database)

            assert reading.cancelled()
            assert await database.fetch("SELECT 1", of=of) == [(1,)]

    async def test_who_waits_leaves_the_queue(self, database: Database) -> None:
        slow = await Slow(database, ANN).begun()
        waiting = [asyncio.ensure_future(database.fetch("SELECT 1", of=ANN)) for _ in range(3)]
        while database._lists.waiting < 3:
            await asyncio.sleep(0)

        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        assert database._lists.waiting == 2
        slow.go.set()
        waiting[1].cancel()  # Perhaps in the moment in which its turn comes.

        assert await waiting[2] == [(1,)]
        async with asyncio.timeout(HANGS_S):
            await self.until_free(database)

    async def test_what_takes_too_long_is_refused(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database._lists, "_read_s_max", 0.05)

        with pytest.raises(Unavailable, match="took longer than"):
            await database.fetch(FOR_EVER[database.dialect], of=ANN)

        assert await database.fetch("SELECT 1", of=ANN) == [(1,)]

    async def test_a_database_that_closes_interrupts_it(self, make_database: MakeDatabase) -> None:
        async with make_database([THINGS]) as database:
            reading = asyncio.ensure_future(database.fetch(FOR_EVER[database.dialect]))
            while not database._lists.running:
                await asyncio.sleep(0.001)
        assert isinstance(await asyncio.gather(reading, return_exceptions=True), list)


class TestPoints:
    async def test_of_a_table_with_wide_rows_not_even_one_is_read_in_the_event_loop(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threads: list[str] = []
        read = database._store.read

        def noted(sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
            threads.append(threading.current_thread().name)
            return read(sql, params)

        monkeypatch.setattr(database._store, "read", noted)
        for table in (THINGS, WIDE):
            assert await database.fetch_point(table, ("id",), (ANN,)) is None
            assert await database.fetch_keys(table, ("id",), [ANN, BOB]) == []
            assert await database.fetch_few(table, ("id",), (ANN,), by=("id",)) == []

        inline, remote = ["MainThread"] * 3, ["comptoir-reader_0"] * 6
        assert threads == (inline if database.dialect == "sqlite" else remote)

    async def test_one_row_and_few_and_many(self, database: Database) -> None:
        def key(n: int) -> bytes:
            return n.to_bytes(16, "big")

        await database.run(lambda tx: tx.insert(THINGS, [(key(n), f"n{n:02}", None) for n in range(40)]))

        assert await database.fetch_point(THINGS, ("name", "length(name)"), (key(3),)) == ("n03", 3)
        assert await database.fetch_point(THINGS, ("id",), ("n04",), by=("name",)) == (key(4),)
        assert await database.fetch_point(THINGS, ("id",), ("nobody",), by=("name",)) is None
        assert await database.fetch_few(THINGS, ("name",), (key(5),), by=("id",)) == [("n05",)]
        for count in (0, 1, 16, 17, 40):
            rows = await database.fetch_keys(THINGS, ("name",), [key(n) for n in range(count)])
            assert sorted(rows) == [(f"n{n:02}",) for n in range(count)]

    async def test_nothing_else_can_be_read_as_a_point(self, database: Database) -> None:
        refused = {
            "no point read": database.fetch_point(THINGS, ("id",), (None,), by=("note",)),
            "reads the whole table": database.fetch_few(THINGS, ("id",), (None,), by=("note",)),
            "no column": database.fetch_point(THINGS, ("count(*)",), (ANN,)),
            "no column other": database.fetch_keys(THINGS, ("other",), [ANN]),
        }
        for words, asked in refused.items():
            with pytest.raises(ValueError, match=words):
                await asked

    async def test_an_audit_does_not_wait_for_lists_nor_they_for_it(self, database: Database) -> None:
        began, go = threading.Event(), threading.Event()

        def look(fetch: Fetch) -> int:
            began.set()
            assert go.wait(20)
            return int(fetch("SELECT 1")[0][0])

        audit = asyncio.ensure_future(database.read_snapshot(look))
        assert await asyncio.to_thread(began.wait, 20)
        async with asyncio.timeout(HANGS_S):
            assert await database.fetch("SELECT 1") == [(1,)]
        go.set()
        assert await audit == 1
