"""Nodes on a bus, for tests: what each heard, and the two ways they reach each other."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from comptoir.kit.bus import Bus, open_bus
from tests.kit.local_bus import Exchange, LocalBus
from tests.redis_server import RedisServer


class Ear:
    """What one node heard, and a way to wait for it."""

    def __init__(self, bus: Bus, node_id: bytes) -> None:
        self.bus = bus
        self.node_id = node_id
        self.heard: list[tuple[bytes, bytes]] = []
        """Senders and what they said."""
        self.gaps: list[bytes] = []
        self.changes: list[bool] = []
        self.order: list[bytes] = []
        """Messages and gaps in the order they came; a gap is ``b"(gap)"``."""
        self._news = asyncio.Event()

    async def start(self) -> None:
        await self.bus.start(on_message=self._message, on_change=self._change, on_gap=self._gap)

    def _message(self, sender: bytes, data: bytes) -> None:
        self.heard.append((sender, data))
        self.order.append(data)
        self._news.set()

    def _change(self, up: bool) -> None:
        self.changes.append(up)
        self._news.set()

    def _gap(self, sender: bytes) -> None:
        self.gaps.append(sender)
        self.order.append(b"(gap)")
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_heard(self, count: int) -> list[bytes]:
        """Wait for *count* messages in all and return them."""
        await self.until(lambda: len(self.heard) >= count)
        return [data for _, data in self.heard]


class Wire(Protocol):
    """How the nodes of a test reach each other."""

    def bus(self, node_id: bytes) -> Bus: ...
    def cut(self) -> None: ...
    def mend(self) -> None: ...


class LocalWire:
    def __init__(self) -> None:
        self.exchange = Exchange()
        self.cut = self.exchange.cut
        self.mend = self.exchange.mend

    def bus(self, node_id: bytes) -> Bus:
        return LocalBus(self.exchange, node_id)


class RedisWire:
    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.cut = server.kill
        self.mend = server.start

    def bus(self, node_id: bytes, *, post: str = "test") -> Bus:
        return open_bus(self.server.url, node_id, post=post)


@contextlib.asynccontextmanager
async def nodes(wire: Wire, count: int = 2) -> AsyncIterator[list[Ear]]:
    """Start nodes, one after the other."""
    made: list[Ear] = []
    try:
        for _ in range(count):
            node_id = os.urandom(16)
            ear = Ear(wire.bus(node_id), node_id)
            made.append(ear)
            await ear.start()
        yield made
    finally:
        for ear in made:
            await ear.bus.close()
