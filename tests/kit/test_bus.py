"""The bus: what its door promises, held against both implementations."""

import asyncio
import os

import pytest

from comptoir.kit.bus import MESSAGE_BYTES_MAX, OUTGOING_BYTES_MAX
from tests.kit.bus_nodes import Ear, LocalWire, RedisWire, Wire, nodes


@pytest.fixture(params=["local", "redis"])
def wire(request: pytest.FixtureRequest) -> Wire:
    if request.param == "local":
        return LocalWire()
    return RedisWire(request.getfixturevalue("redis_server"))


class TestSend:
    async def test_messages_come_in_order_and_once(self, wire: Wire) -> None:
        async with nodes(wire) as (one, two):
            said = [b"%d" % number for number in range(2_000)]
            for number, data in enumerate(said):
                one.bus.send(two.node_id, data)
                if number % 7 == 0:
                    await asyncio.sleep(0)

            assert await two.until_heard(2_000) == said
            assert {sender for sender, _ in two.heard} == {one.node_id}
            assert two.gaps == []

    async def test_bytes_of_any_kind_and_size_arrive(self, wire: Wire) -> None:
        async with nodes(wire) as (one, two):
            said = [b"", bytes(range(256)), b"\r\n$-1\r\n", os.urandom(MESSAGE_BYTES_MAX), b"x" * 300_000]
            for data in said:
                one.bus.send(two.node_id, data)

            assert await two.until_heard(len(said)) == said

    async def test_every_node_talks_to_every_node(self, wire: Wire) -> None:
        async with nodes(wire, 3) as ears:
            for speaker in ears:
                for listener in ears:
                    for number in range(50):
                        speaker.bus.send(listener.node_id, b"%d" % number)

            for listener in ears:
                await listener.until_heard(150)
                for speaker in ears:
                    said = [data for sender, data in listener.heard if sender == speaker.node_id]
                    assert said == [b"%d" % number for number in range(50)]

    async def test_a_message_to_nobody_harms_nobody(self, wire: Wire) -> None:
        async with nodes(wire) as (one, two):
            one.bus.send(os.urandom(16), b"lost")
            one.bus.send(two.node_id, b"found")

            assert await two.until_heard(1) == [b"found"]
            assert one.bus.up

    async def test_a_message_that_is_too_large_is_a_gap(self, wire: Wire) -> None:
        async with nodes(wire) as (one, two):
            one.bus.send(two.node_id, b"before")
            one.bus.send(two.node_id, b"x" * (MESSAGE_BYTES_MAX + 1))
            one.bus.send(two.node_id, b"after")
            await two.until_heard(2)

            assert two.order == [b"before", b"(gap)", b"after"]
            assert one.bus.traffic.dropped == 1

    async def test_what_waits_is_bounded_and_what_is_dropped_is_a_gap(self, wire: Wire) -> None:
        async with nodes(wire) as (one, two):
            large = b"x" * MESSAGE_BYTES_MAX
            fitting = OUTGOING_BYTES_MAX // MESSAGE_BYTES_MAX
            for _ in range(fitting + 5):
                one.bus.send(two.node_id, large)

            await two.until_heard(fitting)
            await two.until(lambda: bool(two.gaps))
            assert len(two.heard) == fitting
            assert one.bus.traffic.dropped == 5

    async def test_a_failing_receiver_gets_the_next_message(self, wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
        async with nodes(wire, 1) as (one,):
            node_id, got = os.urandom(16), asyncio.Event()

            def on_message(sender: bytes, data: bytes) -> None:
                if data == b"bad":
                    raise KeyError("no such thing")
                got.set()

            bus = wire.bus(node_id)
            await bus.start(on_message=on_message, on_change=lambda up: None, on_gap=lambda sender: None)
            one.bus.send(node_id, b"bad")
            one.bus.send(node_id, b"good")

            await asyncio.wait_for(got.wait(), 10)
            await bus.close()
        assert "no such thing" in caplog.text


class TestGap:
    async def test_who_begins_late_hears_that_something_was_said_before(self, wire: Wire) -> None:
        async with nodes(wire, 1) as (one,):
            node_id = os.urandom(16)
            one.bus.send(node_id, b"too early")
            await asyncio.sleep(0)
            late = Ear(wire.bus(node_id), node_id)
            await late.start()
            await late.until(lambda: bool(late.gaps))
            one.bus.send(node_id, b"in time")
            await late.until_heard(1)
            await late.bus.close()

        assert late.order == [b"(gap)", b"in time"]

    async def test_a_first_message_is_no_gap(self, wire: Wire) -> None:
        async with nodes(wire) as (one, two):
            one.bus.send(two.node_id, b"first")
            await two.until_heard(1)

            assert two.gaps == []

    async def test_a_process_that_starts_again_is_somebody_else(self, wire: Wire) -> None:
        async with nodes(wire) as (one, two):
            one.bus.send(two.node_id, b"first life")
            await two.until_heard(1)
            await one.bus.close()
            node_id = os.urandom(16)
            again = Ear(wire.bus(node_id), node_id)
            await again.start()
            again.bus.send(two.node_id, b"second life")
            await two.until_heard(2)
            await again.bus.close()

            assert two.heard[1] == (node_id, b"second life")
            assert two.gaps == []


class TestUp:
    async def test_a_bus_that_goes_and_comes_back_says_so_each_time(self, wire: Wire) -> None:
        async with nodes(wire) as (one, two):
            assert (one.bus.up, one.changes) == (True, [True])

            wire.cut()
            await one.until(lambda: one.changes == [True, False])
            assert not one.bus.up
            wire.mend()
            await one.until(lambda: one.changes == [True, False, True])
            assert one.bus.up

            await two.until(lambda: two.bus.up)
            one.bus.send(two.node_id, b"again")
            assert await two.until_heard(1) == [b"again"]

    async def test_what_is_said_while_it_is_down_is_lost_and_told(self, wire: Wire) -> None:
        async with nodes(wire) as (one, two):
            one.bus.send(two.node_id, b"before")
            await two.until_heard(1)
            wire.cut()
            await one.until(lambda: not one.bus.up)
            one.bus.send(two.node_id, b"meanwhile")
            wire.mend()
            await two.until(lambda: two.bus.up and bool(two.gaps))
            await one.until(lambda: one.bus.up)
            one.bus.send(two.node_id, b"after")
            await two.until_heard(2)

        assert [data for data in two.order if data != b"(gap)"] == [b"before", b"after"]

    async def test_who_closes_hears_nothing_any_more(self, wire: Wire) -> None:
        async with nodes(wire) as (one, two):
            await two.bus.close()
            await two.bus.close()
            one.bus.send(two.node_id, b"too late")
            two.bus.send(one.node_id, b"too late")
            wire.cut()
            await one.until(lambda: not one.bus.up)
            wire.mend()

            assert two.heard == [] == one.heard
            assert two.changes == [True]

    async def test_what_waits_at_the_close_is_sent(self, wire: Wire) -> None:
        async with nodes(wire) as (one, two):
            one.bus.send(two.node_id, b"farewell")
            await one.bus.close()

            assert await two.until_heard(1) == [b"farewell"]


class TestExchange:
    async def test_loses_what_it_is_told_to_and_the_receiver_hears_of_it(self) -> None:
        wire = LocalWire()
        async with nodes(wire) as (one, two):
            wire.exchange.lose(1)
            one.bus.send(two.node_id, b"lost")

            await two.until(lambda: two.gaps == [one.node_id])
            assert two.heard == []
