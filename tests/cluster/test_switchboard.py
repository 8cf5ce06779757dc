"""Messages between coordinators: gathered, cut where they are too large, put together again."""

import asyncio
import os

from comptoir.cluster.messages import Declined, HttpAnswer, Took
from comptoir.cluster.switchboard import Switchboard
from comptoir.kit.bus import MESSAGE_BYTES_MAX
from tests.kit.local_bus import Exchange, LocalBus

ONE, TWO = b"1" * 16, b"2" * 16


class Pair:
    """Two coordinators on one bus, the second of which notes what it hears."""

    def __init__(self) -> None:
        self.exchange = Exchange()
        self.one = Switchboard(LocalBus(self.exchange, ONE))
        self.two = Switchboard(LocalBus(self.exchange, TWO))
        self.heard: list[object] = []
        self.gaps: list[bytes] = []
        for kind in (Took, Declined, HttpAnswer):
            self.two.on(kind, lambda sender, message: self.heard.append(message))
        self.two.on_gap.append(self.gaps.append)

    async def start(self) -> "Pair":
        await self.one.start()
        await self.two.start()
        return self

    async def until_heard(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.heard) < count:
                await asyncio.sleep(0)


class TestSend:
    async def test_what_is_said_in_one_turn_goes_as_one_and_in_order(self) -> None:
        pair = await Pair().start()

        for number in range(100):
            pair.one.send(TWO, Took(bytes([number])))
            pair.one.send(TWO, Declined(bytes([number])))
        await pair.until_heard(200)

        assert pair.heard == [kind(bytes([number])) for number in range(100) for kind in (Took, Declined)]

    async def test_a_message_of_any_size_arrives_whole(self) -> None:
        pair = await Pair().start()
        sizes = (MESSAGE_BYTES_MAX - 20, MESSAGE_BYTES_MAX, 3 * MESSAGE_BYTES_MAX + 1)
        said = [HttpAnswer(1, 200, [], os.urandom(size)) for size in sizes]

        for message in said:
            pair.one.send(TWO, message)
            pair.one.send(TWO, Took(b"between"))
            await asyncio.sleep(0)
        await pair.until_heard(6)

        assert pair.heard == [message for large in said for message in (large, Took(b"between"))]
        assert pair.gaps == []

    async def test_a_lost_piece_loses_its_message_and_nothing_else(self) -> None:
        pair = await Pair().start()
        pair.one.send(TWO, Took(b"first"))
        await pair.until_heard(1)

        pair.exchange.lose(1)
        pair.one.send(TWO, HttpAnswer(1, 200, [], os.urandom(3 * MESSAGE_BYTES_MAX)))
        await asyncio.sleep(0)
        pair.one.send(TWO, Took(b"last"))
        await pair.until_heard(2)

        assert pair.heard == [Took(b"first"), Took(b"last")]
        assert pair.gaps == [ONE]


class TestReceive:
    async def test_a_handler_that_fails_costs_no_other_message(self, caplog: object) -> None:
        pair = await Pair().start()
        seen: list[object] = []

        def broken(sender: bytes, message: Took) -> None:
            raise RuntimeError("a bug")

        pair.one.on(Took, broken)
        pair.one.on(Declined, lambda sender, message: seen.append(message))
        pair.two.send(ONE, Took(b"a"))
        pair.two.send(ONE, Declined(b"b"))
        async with asyncio.timeout(5):
            while not seen:
                await asyncio.sleep(0)

        assert seen == [Declined(b"b")]
