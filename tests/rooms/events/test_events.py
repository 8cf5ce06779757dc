"""Numbered events on both databases: read from a cursor, kept as long as retention says, followed without missing
one."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

from comptoir.events import (
    NUMBERED,
    TABLES,
    CreditAdded,
    Events,
    EventsForgotten,
    FollowingBegan,
    HostChanged,
    JobAccepted,
    JobAssigned,
    JobEnded,
    NumberedEvent,
    UnknownEvent,
    WebhookPaused,
    service,
    store,
)
from comptoir.kit.db import Database
from tests.conftest import MakeDatabase

ANN, BOB = b"a" * 16, b"b" * 16


@pytest.fixture
async def database(make_database: MakeDatabase) -> AsyncIterator[Database]:
    async with make_database(TABLES) as opened:
        yield opened


@pytest.fixture
async def events(database: Database) -> Events:
    return Events(database)


def ended(number: int, *, owner_id: bytes = ANN, at_ms: int = 1_000) -> JobEnded:
    """A job's end that its number tells from others."""
    return JobEnded(owner_id, at_ms, number, number.to_bytes(16, "big"), "completed", number * 10)


async def write(database: Database, *rows: NumberedEvent) -> None:
    await database.run(lambda tx: Events.insert_rows(tx, rows))


async def happen(events: Events, database: Database, *rows: NumberedEvent) -> None:
    """Write, then tell, as every command does."""
    await write(database, *rows)
    for row in rows:
        events.publish(row)


def numbers(found: Sequence[NumberedEvent]) -> list[int]:
    return [event.number for event in found]


class TestInACommand:
    async def test_the_next_events_are_read_without_looking_for_gaps(self, events: Events, database: Database) -> None:
        await write(database, *map(ended, (3, 4, 5)), ended(1, owner_id=BOB))
        found = await database.run(lambda tx: Events.next_events(tx.fetch, ANN, after=1, limit=2))

        assert numbers(found) == [3, 4]

    @pytest.mark.parametrize(("at_ms", "number"), [(0, 2), (30, 2), (31, 3), (45, 4), (50, 4), (51, 5), (10**15, 5)])
    async def test_a_time_is_found_among_the_numbers(
        self, events: Events, database: Database, at_ms: int, number: int
    ) -> None:
        """The first two are forgotten."""
        await write(database, *[ended(one, at_ms=10 * one) for one in (3, 4, 5)])

        assert await database.run(lambda tx: Events.number_before(tx.fetch, ANN, at_ms=at_ms)) == number
        assert await database.run(lambda tx: Events.number_before(tx.fetch, BOB, at_ms=at_ms)) == 0


class TestAfter:
    @pytest.mark.parametrize(
        "event",
        [
            JobEnded(ANN, 5, 1, b"j" * 16, "failed", 0, "upstream_error"),
            CreditAdded(ANN, 5, 1, b"t" * 16, 10**15, "deposit"),
            WebhookPaused(ANN, 5, 1, b"w" * 16, "it answered 410 Gone"),
            JobAccepted(ANN, 5, 1, b"j" * 16, "m"),
            JobAssigned(ANN, 5, 1, b"j" * 16, b"l" * 16, b"h" * 16),
            HostChanged(ANN, 5, 1, b"h" * 16, "offline"),
        ],
    )
    async def test_what_was_written_is_read(self, events: Events, database: Database, event: NumberedEvent) -> None:
        await write(database, event)

        assert await events.after(ANN, 0) == [event]

    def test_every_numbered_type_has_been_read_above(self) -> None:
        assert set(NUMBERED) == {JobEnded, CreditAdded, WebhookPaused, JobAccepted, JobAssigned, HostChanged}

    @pytest.mark.parametrize(
        ("after", "limit", "found"),
        [(0, 100, [1, 2, 3, 4, 5]), (0, 2, [1, 2]), (2, 2, [3, 4]), (4, 2, [5]), (5, 2, []), (99, 2, [])],
    )
    async def test_a_page_begins_after_the_cursor(
        self, events: Events, database: Database, after: int, limit: int, found: list[int]
    ) -> None:
        await write(database, *map(ended, range(1, 6)), ended(1, owner_id=BOB))

        assert numbers(await events.after(ANN, after, limit=limit)) == found
        assert await events.newest(ANN) == 5

    async def test_a_page_is_bounded(self, events: Events, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(service, "PAGE_MAX", 3)
        await write(database, *map(ended, range(1, 6)))

        assert numbers(await events.after(ANN, 0, limit=10**9)) == [1, 2, 3]

    async def test_of_nobody_there_is_nothing(self, events: Events) -> None:
        assert await events.after(ANN, 0) == []
        assert await events.newest(ANN) == 0

    async def test_a_type_of_a_newer_version_is_passed_on_as_it_is(self, events: Events, database: Database) -> None:
        row = (ANN, 1, 7, "cloud.rented", b"c" * 16, '{"gpu":"h200"}')
        await database.run(lambda tx: tx.insert(store.EVENTS, [row]))
        await write(database, ended(2))

        assert await events.after(ANN, 0) == [
            UnknownEvent(ANN, 7, 1, b"c" * 16, "cloud.rented", '{"gpu":"h200"}'),
            ended(2),
        ]

    async def test_a_field_of_a_newer_version_is_left_out_and_one_not_yet_known_has_its_default(
        self, events: Events, database: Database
    ) -> None:
        data = msgspec.json.encode({"state": "completed", "cost_uusd": 3, "carbon_mg": 5}).decode()
        await database.run(lambda tx: tx.insert(store.EVENTS, [(ANN, 1, 7, "job.ended", b"j" * 16, data)]))

        assert await events.after(ANN, 0) == [JobEnded(ANN, 7, 1, b"j" * 16, "completed", 3, "")]


class TestForget:
    async def forget_all(self, events: Events, older_than_ms: int) -> int:
        gone, through = await events.forget(older_than_ms=older_than_ms)
        while not through:
            more, through = await events.forget(older_than_ms=older_than_ms)
            gone += more
        return gone

    async def test_what_is_old_goes_and_the_newest_stays(self, events: Events, database: Database) -> None:
        await write(database, *(ended(n, at_ms=n * 10) for n in range(1, 6)))
        await write(database, *(ended(n, owner_id=BOB, at_ms=1) for n in range(1, 4)))

        assert await self.forget_all(events, 35) == 3 + 2

        assert numbers(await events.after(ANN, 3)) == [4, 5]
        assert numbers(await events.after(BOB, 2)) == [3]
        assert await events.newest(BOB) == 3

    async def test_what_is_left_has_no_gap_though_a_clock_went_back(self, events: Events, database: Database) -> None:
        await write(database, ended(1, at_ms=10), ended(2, at_ms=50), ended(3, at_ms=20), ended(4, at_ms=60))

        assert await self.forget_all(events, 40) == 1

        assert numbers(await events.after(ANN, 1)) == [2, 3, 4]

    @pytest.mark.parametrize(("after", "first"), [(0, 4), (2, 4), (3, None), (5, None), (9, None)])
    async def test_a_cursor_behind_what_is_kept_is_told_where_to_go_on(
        self, events: Events, database: Database, after: int, first: int | None
    ) -> None:
        await write(database, *(ended(n, at_ms=n * 10) for n in range(1, 6)))
        await self.forget_all(events, 35)

        if first is None:
            await events.after(ANN, after)
            return
        with pytest.raises(EventsForgotten) as refused:
            await events.after(ANN, after)
        assert (refused.value.after, refused.value.first_number) == (after, first)
        assert numbers(await events.after(ANN, first - 1)) == [4, 5]

    async def test_a_command_is_bounded_in_rows_and_owners(
        self, events: Events, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "FORGET_ROWS_MAX", 4)
        monkeypatch.setattr(store, "FORGET_OWNERS_MAX", 2)
        owners = [bytes([n]) * 16 for n in range(5)]
        for owner_id in owners:
            await write(database, *(ended(n, owner_id=owner_id, at_ms=1) for n in range(1, 11)))
        gone, calls, through = 0, 0, False
        while not through:
            more, through = await events.forget(older_than_ms=2)
            assert more < 8
            gone, calls = gone + more, calls + 1

        assert gone == 5 * 9
        assert calls <= 20
        assert await self.forget_all(events, 2) == 0


class TestFollow:
    async def test_it_reads_what_was_and_then_what_comes(self, events: Events, database: Database) -> None:
        await write(database, ended(1), ended(2))
        with events.follow(ANN, after=1) as reader:
            assert await reader.next() == ended(2)
            waiting = asyncio.create_task(reader.next())
            await asyncio.sleep(0)
            await happen(events, database, ended(1, owner_id=BOB), ended(3))

            assert await waiting == ended(3)
            assert reader.number == 3

    async def test_what_happens_here_is_handed_over_without_a_look_into_the_table(
        self, events: Events, database: Database
    ) -> None:
        with events.follow(ANN, after=0) as reader:
            waiting = asyncio.create_task(reader.next())
            await write(database)  # Behind it, the reader has looked and found nothing.
            while reader._behind:
                await asyncio.sleep(0)
            events.publish(ended(1))  # Never written: only what is handed over can be read.

            assert await waiting == ended(1)

    async def test_what_happens_elsewhere_is_read_when_news_come(self, events: Events, database: Database) -> None:
        with events.follow(ANN, after=0) as reader:
            waiting = asyncio.create_task(reader.next())
            while reader._behind:
                await asyncio.sleep(0)
            await write(database, ended(1), ended(2))
            events.heard_elsewhere(BOB, 2)
            events.heard_elsewhere(ANN, 2)

            assert await waiting == ended(1)
            assert await reader.next() == ended(2)

    async def test_lost_news_cost_a_delay_and_no_event(
        self, events: Events, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "LOOK_S", 0.01)
        with events.follow(ANN, after=0) as reader:
            waiting = asyncio.create_task(reader.next())
            while reader._behind:
                await asyncio.sleep(0)
            await write(database, ended(1))

            assert await waiting == ended(1)

    async def test_told_out_of_order_it_reads_in_order(self, events: Events, database: Database) -> None:
        with events.follow(ANN, after=0) as reader:
            await write(database, *map(ended, range(1, 5)))
            for number in (2, 1, 4, 3, 3):
                events.publish(ended(number))

            assert numbers([await reader.next() for _ in range(4)]) == [1, 2, 3, 4]

    async def test_a_slow_reader_is_handed_a_bounded_number_and_misses_none(
        self, events: Events, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "HANDED_MAX", 3)
        monkeypatch.setattr(service, "READ_MAX", 4)
        with events.follow(ANN, after=0) as reader:
            for number in range(1, 21):
                await happen(events, database, ended(number))
                assert len(reader._page) <= 4

            assert numbers([await reader.next() for _ in range(20)]) == list(range(1, 21))

    async def test_one_that_fell_behind_retention_is_told_and_may_go_on(
        self, events: Events, database: Database
    ) -> None:
        await write(database, *(ended(n, at_ms=n) for n in range(1, 6)))
        await events.forget(older_than_ms=4)
        with events.follow(ANN, after=0) as reader, pytest.raises(EventsForgotten) as refused:
            await reader.next()

        with events.follow(ANN, after=refused.value.first_number - 1) as reader:
            assert numbers([await reader.next() for _ in range(2)]) == [4, 5]

    async def test_two_readers_of_one_owner_each_read_all(self, events: Events, database: Database) -> None:
        with events.follow(ANN, after=0) as one, events.follow(ANN, after=0) as two:
            await happen(events, database, ended(1))

            assert [await one.next(), await two.next()] == [ended(1), ended(1)]
            assert events.followed == 1
        assert events.followed == 0

    async def test_the_first_follower_is_told_of(self, events: Events) -> None:
        told: list[FollowingBegan] = []
        events.subscribe(FollowingBegan, told.append)
        with events.follow(ANN, after=0), events.follow(BOB, after=0):
            assert len(told) == 1
        with events.follow(ANN, after=0):
            assert len(told) == 2
