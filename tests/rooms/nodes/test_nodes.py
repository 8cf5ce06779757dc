"""Who is here: slots, silence by the database's clock, goodbyes."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from comptoir.kit.db import Database, ddl, open_database
from comptoir.kit.ids import new_id
from comptoir.nodes import TABLES, Nodes, connection_name
from tests.conftest import MakeDatabase


@pytest.fixture
async def database(make_database: MakeDatabase) -> AsyncIterator[Database]:
    async with make_database(TABLES) as opened:
        yield opened


class TestJoin:
    async def test_each_that_is_here_has_a_slot_of_its_own(self, database: Database) -> None:
        nodes = [Nodes(database, new_id()) for _ in range(4)]

        slots = await asyncio.gather(*(node.join(version="1") for node in nodes))

        assert sorted(slots) == [0, 1, 2, 3]

    async def test_a_slot_is_free_again_after_a_goodbye(self, database: Database) -> None:
        first, second, third = (Nodes(database, new_id()) for _ in range(3))
        assert (await first.join(version="1"), await second.join(version="1")) == (0, 1)

        await first.leave()

        assert await third.join(version="1") == 0

    async def test_a_slot_is_free_again_after_a_silence(self, database: Database) -> None:
        first, second = Nodes(database, new_id()), Nodes(database, new_id())
        await first.join(version="1")
        await database.run(lambda tx: tx.execute("UPDATE nodes SET seen_ms = seen_ms - 60000"))

        assert await second.join(version="1") == 0

    async def test_joining_twice_keeps_the_slot(self, database: Database) -> None:
        first, second = Nodes(database, new_id()), Nodes(database, new_id())
        await first.join(version="1")
        assert await second.join(version="1") == 1

        assert await second.join(version="1") == 1

    async def test_who_is_gone_for_long_is_forgotten(self, database: Database) -> None:
        first, second = Nodes(database, new_id()), Nodes(database, new_id())
        await first.join(version="1")
        await database.run(lambda tx: tx.execute("UPDATE nodes SET seen_ms = seen_ms - 4000000"))

        await second.join(version="1")

        assert [node.id for node in await second.beat()] == [second.node_id]


class TestBeat:
    async def test_it_ends_the_own_silence_and_tells_the_others(self, database: Database) -> None:
        first, second = Nodes(database, new_id()), Nodes(database, new_id())
        await first.join(version="1")
        await second.join(version="2")
        await database.run(lambda tx: tx.execute("UPDATE nodes SET seen_ms = seen_ms - 5000"))

        seen = {node.id: node for node in await first.beat()}

        assert seen[first.node_id].silent_ms < 1000
        assert seen[second.node_id].silent_ms >= 5000
        assert (seen[second.node_id].slot, seen[second.node_id].version) == (1, "2")

    async def test_who_left_stays_gone(self, database: Database) -> None:
        first, second = Nodes(database, new_id()), Nodes(database, new_id())
        await first.join(version="1")
        await second.join(version="1")

        await second.leave()
        await second.beat()

        assert [node.left for node in await first.beat()] == [False, True]


class TestConnected:
    async def test_one_that_was_killed_has_no_connection_left(self, postgres_address: str) -> None:
        """The kernel closes them with the process, long before anybody could call it silent."""
        ids = [new_id(), new_id()]
        first, second = (open_database(postgres_address, name=connection_name(node_id)) for node_id in ids)
        for table in TABLES:
            for statement in ddl(table, "postgresql"):
                await first.run(lambda tx, s=statement: tx.execute(s))
        here, there = Nodes(first, ids[0]), Nodes(second, ids[1])
        await here.join(version="1")
        await there.join(version="1")
        assert [node.connected for node in await here.beat()] == [True, True]

        await second.close()

        async with asyncio.timeout(10):
            while [node.connected for node in await here.beat()] != [True, False]:
                await asyncio.sleep(0.01)
        await first.close()

    async def test_where_the_server_does_not_show_us_nobody_is_taken_to_be_gone(self, database: Database) -> None:
        """Behind a pooler connections bear its name; on SQLite there are none."""
        first, second = Nodes(database, new_id()), Nodes(database, new_id())
        await first.join(version="1")
        await second.join(version="1")

        assert [node.connected for node in await first.beat()] == [True, True]
