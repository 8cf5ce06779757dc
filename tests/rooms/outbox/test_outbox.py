"""Intents on both databases: written with their cause, claimed by one at a time, reported on under the claim."""

from collections.abc import AsyncIterator

import pytest

from comptoir.kit.db import Database, Tx
from comptoir.outbox import (
    ATTEMPTS_MAX,
    TABLES,
    Attempt,
    Claimed,
    Intent,
    IntentState,
    Outbox,
    OutboxFull,
    UnknownIntent,
    intent_id,
    service,
    store,
)
from tests.conftest import MakeDatabase

ANN, LANE, OTHER = b"a" * 16, b"l" * 16, b"o" * 16
HERE, THERE = b"h" * 16, b"t" * 16


@pytest.fixture
async def database(make_database: MakeDatabase) -> AsyncIterator[Database]:
    async with make_database(TABLES) as opened:
        yield opened


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database)


def intent(number: int, *, lane: bytes = LANE, in_order: bool = False) -> Intent:
    """An intent that its number tells from others."""
    return Intent(
        kind="toy", key=f"{lane.hex()}:{number}", owner_id=ANN, lane=lane, payload=b"%d" % number, number=number,
        in_order=in_order,
    )  # fmt: skip


async def put(database: Database, *intents: Intent, at_ms: int = 0) -> int:
    return await database.run(lambda tx: Outbox.put(tx, intents, at_ms=at_ms))


async def claim(database: Database, *ids: bytes, at_ms: int, node_id: bytes = HERE, for_ms: int = 100) -> list[Claimed]:
    return await database.run(lambda tx: Outbox.claim(tx, ids, node_id=node_id, at_ms=at_ms, until_ms=at_ms + for_ms))


async def report(
    database: Database, claimed: Claimed, state: IntentState, *, due_ms: int | None = None, at_ms: int = 50
) -> bool:
    attempt = Attempt(at_ms, 7, 200, "", "ok")
    return await database.run(lambda tx: Outbox.report(tx, claimed, attempt, state=state, due_ms=due_ms, at_ms=at_ms))


async def due(outbox: Outbox, at_ms: int) -> list[bytes]:
    return [one.id for one in await outbox.due("toy", at_ms=at_ms)]


class TestPut:
    async def test_the_same_key_is_one_intent(self, database: Database, outbox: Outbox) -> None:
        assert await put(database, intent(1)) == 1
        assert await put(database, intent(1), intent(2)) == 1

        assert len(await outbox.page(LANE)) == 2

    async def test_one_that_is_over_stays_over(self, database: Database, outbox: Outbox) -> None:
        """A cause that is written a second time does not act a second time."""
        await put(database, intent(1))
        (held,) = await claim(database, intent(1).id, at_ms=0)
        await report(database, held, IntentState.DONE)

        assert await put(database, intent(1)) == 0
        assert (await outbox.get(LANE, held.id)).state is IntentState.DONE

    async def test_it_is_there_only_with_its_cause(self, database: Database, outbox: Outbox) -> None:
        def command(tx: Tx) -> None:
            Outbox.put(tx, [intent(1)], at_ms=0)
            raise ValueError("the cause was refused")

        with pytest.raises(ValueError, match="refused"):
            await database.run(command)

        assert await outbox.page(LANE) == []

    async def test_what_waits_of_one_owner_is_bounded(
        self, database: Database, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "WAITING_PER_OWNER_MAX", 2)
        await put(database, intent(1), intent(2, lane=OTHER))

        with pytest.raises(OutboxFull):
            await put(database, intent(3))
        assert set(await due(outbox, 0)) == {intent(1).id, intent(2, lane=OTHER).id}

    def test_an_id_is_that_of_kind_and_key(self) -> None:
        """So that every attempt, replay and coordinator brings the far side the same one."""
        assert intent_id("a", "b") == intent_id("a", "b") != intent_id("ab", "")


class TestClaim:
    async def test_a_second_one_gets_nothing(self, database: Database, outbox: Outbox) -> None:
        await put(database, intent(1))
        first = await claim(database, intent(1).id, at_ms=0)
        second = await claim(database, intent(1).id, at_ms=99, node_id=THERE)

        assert ([one.attempt for one in first], second) == ([1], [])
        assert await due(outbox, 99) == []

    async def test_it_lapses(self, database: Database, outbox: Outbox) -> None:
        """Whoever had it may be dead."""
        await put(database, intent(1))
        await claim(database, intent(1).id, at_ms=0)

        assert await due(outbox, 100) == [intent(1).id]
        assert [one.attempt for one in await claim(database, intent(1).id, at_ms=100, node_id=THERE)] == [2]

    async def test_a_report_under_a_lapsed_claim_is_dropped(self, database: Database, outbox: Outbox) -> None:
        await put(database, intent(1))
        (old,) = await claim(database, intent(1).id, at_ms=0)
        (new,) = await claim(database, intent(1).id, at_ms=100, node_id=THERE)

        assert not await report(database, old, IntentState.DEAD)
        assert (await outbox.get(LANE, old.id)).state is IntentState.WAITING
        assert await report(database, new, IntentState.DONE)
        assert not await report(database, new, IntentState.DEAD)
        assert (await outbox.get(LANE, old.id)).state is IntentState.DONE

    async def test_one_that_kills_whoever_tries_it_is_given_up(self, database: Database, outbox: Outbox) -> None:
        """Its attempts are counted when they begin."""
        await put(database, intent(1))
        for turn in range(ATTEMPTS_MAX):
            assert len(await claim(database, intent(1).id, at_ms=turn * 100)) == 1

        assert await claim(database, intent(1).id, at_ms=ATTEMPTS_MAX * 100) == []
        found = await outbox.get(LANE, intent(1).id)
        assert (found.state, found.history[-1].error) == (IntentState.DEAD, store.GIVEN_UP)

    async def test_those_of_the_dead_are_free_at_once(self, database: Database, outbox: Outbox) -> None:
        """What waits for its next attempt goes on waiting."""
        await put(database, intent(1), intent(2))
        held, failed = await claim(database, intent(1).id, intent(2).id, at_ms=0)
        await report(database, failed, IntentState.WAITING, due_ms=5_000)

        assert await outbox.free_claims(at_ms=10) == 1
        assert await due(outbox, 10) == [held.id]

    async def test_given_back_it_is_due(self, database: Database, outbox: Outbox) -> None:
        await put(database, intent(1))
        (held,) = await claim(database, intent(1).id, at_ms=0)

        assert await database.run(lambda tx: Outbox.give_back(tx, held, due_ms=20))
        assert not await database.run(lambda tx: Outbox.give_back(tx, held, due_ms=0))
        assert (await due(outbox, 19), await due(outbox, 20)) == ([], [held.id])


class TestReport:
    async def test_attempts_are_remembered(self, database: Database, outbox: Outbox) -> None:
        await put(database, intent(1), at_ms=3)
        (held,) = await claim(database, intent(1).id, at_ms=3)
        await report(database, held, IntentState.WAITING, due_ms=60, at_ms=50)
        (held,) = await claim(database, intent(1).id, at_ms=60)
        await report(database, held, IntentState.DONE, at_ms=70)

        found = await outbox.get(LANE, intent(1).id)

        assert (found.payload, found.created_ms, found.over_ms, found.due_ms) == (b"1", 3, 70, None)
        assert found.history == [Attempt(50, 7, 200, "", "ok"), Attempt(70, 7, 200, "", "ok")]

    async def test_the_untried_are_counted(self, database: Database) -> None:
        await put(database, intent(1, in_order=True), intent(2, in_order=True), intent(3))
        counted = lambda: database.run(lambda tx: Outbox.counts(tx, ANN, LANE))  # noqa: E731
        before = await counted()
        (held,) = await claim(database, intent(1).id, at_ms=0)
        while_claimed = await counted()
        await report(database, held, IntentState.WAITING, due_ms=60)
        once_tried = await counted()

        assert (held.first, before, while_claimed, once_tried) == (True, (2, 3), (2, 3), (1, 3))


class TestLanes:
    async def test_a_busy_one_hides_no_other(self, database: Database, outbox: Outbox) -> None:
        await put(database, intent(1), intent(2, lane=OTHER))

        assert [one.lane for one in await outbox.due("toy", at_ms=0, but=[LANE])] == [OTHER]
        assert await outbox.due("other", at_ms=0) == []

    async def test_a_parked_one_waits_until_it_is_not(self, database: Database, outbox: Outbox) -> None:
        await put(database, intent(1), intent(2, lane=OTHER))

        assert await database.run(lambda tx: Outbox.park(tx, ANN, LANE)) == 1
        assert await due(outbox, 10**15) == [intent(2, lane=OTHER).id]
        assert await database.run(lambda tx: Outbox.unpark(tx, ANN, LANE, at_ms=5)) == 1
        assert len(await due(outbox, 5)) == 2

    async def test_a_dead_one_can_be_sent_again(self, database: Database, outbox: Outbox) -> None:
        await put(database, intent(1))
        (held,) = await claim(database, intent(1).id, at_ms=0)
        await report(database, held, IntentState.DEAD)

        assert await database.run(lambda tx: Outbox.revive(tx, held.id, at_ms=60))
        assert not await database.run(lambda tx: Outbox.revive(tx, held.id, at_ms=60))
        (again,) = await claim(database, held.id, at_ms=60)

        assert (again.id, again.attempt, again.attempts_end) == (held.id, 2, 1 + ATTEMPTS_MAX)

    async def test_pages_go_back_in_time(self, database: Database, outbox: Outbox) -> None:
        for number in range(5):
            await put(database, intent(number), at_ms=number // 2)  # Some at the same moment.
        first = await outbox.page(LANE, limit=2)
        second = await outbox.page(LANE, limit=2, before=first[-1].id)
        third = await outbox.page(LANE, limit=2, before=second[-1].id)

        assert sorted(one.number for one in [*first, *second, *third]) == [0, 1, 2, 3, 4]
        assert [one.created_ms for one in [*first, *second, *third]] == [2, 1, 1, 0, 0]

    async def test_one_of_another_lane_is_unknown(self, database: Database, outbox: Outbox) -> None:
        await put(database, intent(1))

        with pytest.raises(UnknownIntent):
            await outbox.get(OTHER, intent(1).id)


class TestForget:
    async def test_what_is_over_goes_in_time_and_what_waits_stays(self, database: Database, outbox: Outbox) -> None:
        await put(database, intent(1), intent(2))
        (held,) = await claim(database, intent(1).id, at_ms=0)
        await report(database, held, IntentState.DONE, at_ms=50)

        assert await outbox.forget(at_ms=50 + service.KEPT_MS, lanes=[]) == 0
        assert await outbox.forget(at_ms=51 + service.KEPT_MS, lanes=[]) == 1
        assert [one.number for one in await outbox.page(LANE)] == [2]

    async def test_of_a_lane_the_newest_are_kept(
        self, database: Database, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "KEPT_PER_LANE_MAX", 2)
        for number in range(5):
            await put(database, intent(number), at_ms=number)
        for held in await claim(database, *[intent(number).id for number in range(4)], at_ms=5):
            await report(database, held, IntentState.DONE)

        assert await outbox.forget(at_ms=60, lanes=[LANE]) == 2
        assert [one.number for one in await outbox.page(LANE)] == [4, 3, 2]
