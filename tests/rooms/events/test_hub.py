"""The hub: who subscribed hears, in order and before the publisher goes on; who fails or is slow costs nobody else
anything."""

import asyncio
import logging

import pytest

from comptoir.events import CoordinatorDraining, Event, EventHub, HostFree, JobAccepted, Missed

ANN, BOB = b"a" * 16, b"b" * 16


def accepted(owner_id: bytes, at_ms: int = 1) -> JobAccepted:
    return JobAccepted(owner_id, at_ms, 1, b"j" * 16, "m")


class TestSubscribe:
    def test_hears_its_type_only_and_at_once(self) -> None:
        hub, told = EventHub(), list[Event]()
        hub.subscribe(HostFree, told.append)

        hub.publish(HostFree(ANN))
        hub.publish(CoordinatorDraining(1))

        assert told == [HostFree(ANN)]

    def test_all_hear_in_the_order_in_which_they_subscribed(self) -> None:
        hub, told = EventHub(), list[str]()
        for name in ("first", "second", "third"):
            hub.subscribe(HostFree, lambda event, name=name: told.append(name))

        hub.publish(HostFree(ANN))

        assert told == ["first", "second", "third"]

    def test_who_ended_hears_nothing_more_and_the_others_do(self) -> None:
        hub, told, other = EventHub(), list[Event](), list[Event]()
        end = hub.subscribe(HostFree, told.append)
        hub.subscribe(HostFree, other.append)

        end()
        end()
        hub.publish(HostFree(ANN))

        assert told == []
        assert other == [HostFree(ANN)]

    def test_one_may_end_while_it_is_told(self) -> None:
        hub, told = EventHub(), list[Event]()
        end = hub.subscribe(HostFree, lambda event: end())
        hub.subscribe(HostFree, told.append)

        hub.publish(HostFree(ANN))
        hub.publish(HostFree(BOB))

        assert told == [HostFree(ANN), HostFree(BOB)]

    def test_one_that_fails_is_logged_and_costs_nobody_else_the_event(self, caplog: pytest.LogCaptureFixture) -> None:
        hub, told = EventHub(), list[Event]()

        def broken(event: HostFree) -> None:
            raise ValueError("planted")

        hub.subscribe(HostFree, broken)
        hub.subscribe(HostFree, told.append)

        with caplog.at_level(logging.ERROR, "comptoir.events"):
            hub.publish(HostFree(ANN))

        assert told == [HostFree(ANN)]
        (record,) = caplog.records
        assert record.exc_info is not None
        assert "HostFree" in record.getMessage()


class TestHeard:
    def test_tells_whether_making_an_event_is_of_any_use(self) -> None:
        hub = EventHub()
        assert not hub.heard(HostFree)

        end = hub.subscribe(HostFree, lambda event: None)
        assert hub.heard(HostFree)
        assert not hub.heard(CoordinatorDraining)

        end()
        assert not hub.heard(HostFree)


class TestListen:
    async def test_what_came_is_read_in_order(self) -> None:
        hub = EventHub()
        with hub.listen(HostFree, CoordinatorDraining) as reader:
            hub.publish(HostFree(ANN))
            hub.publish(CoordinatorDraining(2))

            assert await reader.next() == HostFree(ANN)
            assert await reader.next() == CoordinatorDraining(2)

    async def test_a_reader_waits_for_what_is_to_come(self) -> None:
        hub = EventHub()
        with hub.listen(HostFree) as reader:
            waiting = asyncio.create_task(reader.next())
            await asyncio.sleep(0)
            assert not waiting.done()

            hub.publish(HostFree(ANN))

            assert await waiting == HostFree(ANN)

    async def test_a_slow_one_loses_the_oldest_and_reads_how_many(self) -> None:
        hub = EventHub()
        with hub.listen(CoordinatorDraining, waiting_max=3) as reader:
            for number in range(10):
                hub.publish(CoordinatorDraining(number))

            assert [await reader.next() for _ in range(4)] == [
                Missed(7),
                CoordinatorDraining(7),
                CoordinatorDraining(8),
                CoordinatorDraining(9),
            ]
            hub.publish(CoordinatorDraining(10))
            assert await reader.next() == CoordinatorDraining(10)

    async def test_nothing_more_comes_to_one_that_is_closed(self) -> None:
        hub = EventHub()
        with hub.listen(CoordinatorDraining) as reader:
            hub.publish(CoordinatorDraining(1))
        hub.publish(CoordinatorDraining(2))

        assert await reader.next() == CoordinatorDraining(1)
        assert not hub.heard(CoordinatorDraining)


class TestListenFor:
    async def test_a_reader_hears_of_its_owner_only(self) -> None:
        hub = EventHub()
        with hub.listen_for(ANN, JobAccepted) as ann, hub.listen_for(BOB, JobAccepted, waiting_max=1) as bob:
            hub.publish(accepted(BOB, 1))
            hub.publish(accepted(ANN, 2))
            hub.publish(accepted(BOB, 3))

            assert await ann.next() == accepted(ANN, 2)
            assert [await bob.next() for _ in range(2)] == [Missed(1), accepted(BOB, 3)]

    async def test_two_readers_of_one_owner_are_apart(self) -> None:
        hub = EventHub()
        with hub.listen_for(ANN, JobAccepted) as one:
            with hub.listen_for(ANN, JobAccepted):
                hub.publish(accepted(ANN, 1))
            hub.publish(accepted(ANN, 2))

            assert [await one.next() for _ in range(2)] == [accepted(ANN, 1), accepted(ANN, 2)]
