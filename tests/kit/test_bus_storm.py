"""The bus in a storm: whatever happens to the server, nothing comes twice or out of order, and every loss is told."""

import asyncio
import os
import random
from collections.abc import Callable

import pytest

from comptoir.kit.bus import open_bus
from tests.kit.bus_nodes import Ear
from tests.redis_server import RedisServer

NODES = 3
BLOWS = 12
"""Things done to the server in one storm, a few tenths of a second apart."""

QUIET_S = 10.0
"""A bound against hanging: how long everybody may take to hear of what was lost; it takes about a second."""

SEEDS = range(int(os.environ.get("COMPTOIR_STORM_SEEDS", "1")))


class Talker(Ear):
    """A node that counts what it says to each other one, and checks what it hears."""

    def __init__(self, server: RedisServer, number: int) -> None:
        node_id = os.urandom(15) + bytes([number])
        super().__init__(open_bus(server.url, node_id, post="storm"), node_id)
        self.said: dict[bytes, int] = {}
        self.next: dict[bytes, int] = {}
        """By sender: number of the message that should come next."""
        self.told: set[bytes] = set()
        """Senders whose loss was told since their last message."""
        self.wrong: list[str] = []

    def say(self, other: "Talker", filling: bytes) -> None:
        number = self.said.get(other.node_id, 0)
        self.said[other.node_id] = number + 1
        self.bus.send(other.node_id, number.to_bytes(4, "big") + filling)

    def _message(self, sender: bytes, data: bytes) -> None:
        number, expected = int.from_bytes(data[:4], "big"), self.next.get(sender, 0)
        if number < expected:
            self.wrong.append(f"{number} came after {expected - 1}")
        if number > expected and sender not in self.told:
            self.wrong.append(f"{number} came instead of {expected}, and nobody said so")
        self.next[sender] = number + 1
        self.told.discard(sender)

    def _gap(self, sender: bytes) -> None:
        self.told.add(sender)

    def knows_all(self, others: list["Talker"]) -> bool:
        """Tell whether everything said to this node came, or its loss was told."""
        return all(
            self.next.get(other.node_id, 0) == other.said.get(self.node_id, 0) or other.node_id in self.told
            for other in others
            if other is not self
        )


async def blow(server: RedisServer, dice: random.Random, talkers: list[Talker]) -> None:
    """Do something to the server."""
    inbox = f"comptoir:storm:inbox:{dice.choice(talkers).node_id.hex()}"
    asked: list[Callable[[], object]] = [
        lambda: server.ask("FLUSHALL"),
        lambda: server.ask("DEL", inbox),
        lambda: server.ask("XTRIM", inbox, "MAXLEN", "1"),
        lambda: server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
        lambda: server.ask("CLIENT", "PAUSE", "150"),
    ]
    kind = dice.randrange(len(asked) + 3)
    if kind < len(asked):
        asked[kind]()
    elif kind == len(asked):
        server.stop_still()
        await asyncio.sleep(dice.choice((0.05, 0.3, 1.0)))
        server.go_on()
    else:
        server.kill()
        await asyncio.sleep(dice.choice((0.0, 0.1)))
        server.start()
    await asyncio.sleep(dice.uniform(0.0, 0.4))


async def talk(talkers: list[Talker], dice: random.Random) -> None:
    """Have everybody talk to everybody, a little or a lot at a time."""
    while True:
        for _ in range(dice.choice((1, 1, 5, 40))):
            one, other = dice.sample(talkers, 2)
            one.say(other, bytes(dice.choice((0, 60, 2_000))))
        await asyncio.sleep(dice.choice((0.0, 0.001, 0.02)))


class TestStorm:
    @pytest.mark.parametrize("seed", SEEDS)
    async def test_every_loss_is_told_and_nothing_comes_twice(self, redis_server: RedisServer, seed: int) -> None:
        dice = random.Random(seed)
        talkers = [Talker(redis_server, number) for number in range(NODES)]
        for talker in talkers:
            await talker.start()
        talking = asyncio.create_task(talk(talkers, dice))
        for _ in range(BLOWS):
            await blow(redis_server, dice, talkers)
        talking.cancel()

        async with asyncio.timeout(QUIET_S):
            while not all(talker.bus.up and talker.knows_all(talkers) for talker in talkers):
                await asyncio.sleep(0.02)
        heard = [sum(talker.next.values()) for talker in talkers]
        for talker in talkers:
            for other in talkers:
                if other is not talker:
                    talker.say(other, b"it is over")
        async with asyncio.timeout(QUIET_S):
            while waiting := [
                (talker, other)
                for talker in talkers
                for other in talkers
                if other is not talker and talker.next[other.node_id] != other.said[talker.node_id]
            ]:
                for talker, other in waiting:
                    # The last blow may have taken an inbox that nobody missed until now; that loss is told, too.
                    if other.node_id in talker.told:
                        other.say(talker, b"it is over")
                await asyncio.sleep(0.02)
        for talker in talkers:
            await talker.bus.close()
        assert [talker.wrong for talker in talkers] == [[]] * NODES
        assert min(heard) > 0
