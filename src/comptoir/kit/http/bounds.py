"""What connections may hold: how many there are, and the bytes of theirs that wait here, by address and in all.

An `HttpTraffic` counts for all connections of one server. What would go beyond a bound is refused where it comes in,
and whatever was counted is given back when its connection ends, however that happens.
"""

import asyncio
import resource
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import Protocol

from comptoir.kit.errors import Unavailable
from comptoir.kit.http.turns import Turns
from comptoir.kit.ratelimit import address_key

KIB, MIB = 1 << 10, 1 << 20

SWEEP_S = 1.0
"""How often connections that owe something are looked at: a bound of seconds is kept to about one second."""

SWEPT_A_TURN = 64
"""Connections looked at in one turn of the event loop: all of them may have to be cut, at about 50 us each."""

PIECE_BYTES = 16 * KIB
"""Most bytes of an answer that are made and queued at once for one reader. Beyond the kernel's buffer no more of it
waits here, so that 5,000 readers that never read cost 80 MiB."""

HEADERS_MAX = 200
"""Most header lines of a request: each costs about 200 bytes here, which a head of 64 KiB full of empty ones would
multiply."""

LINGER_S = 2.0
"""How long a connection that was refused at its head stays open after the answer, so that a client that still sends can
read it."""

FAILED_S = 3.0
"""How long a request that was given up has to be answered; then its connection is cut."""

FILES_KEPT = 128
"""File descriptors that connections leave to databases, the bus and hosts that are pushed their jobs."""

ACCEPT_TURNS = 5
"""Turns of the event loop after which a connection that was being accepted when a server stopped is made."""

AGAIN_AFTER_S = 5.0
"""When somebody who found no room may come back."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What one server's connections may hold; the settings of the same names say why."""

    connections_max: int = 30_000
    connections_per_address_max: int = 2_048
    head_bytes_max: int = 64 * KIB
    head_s: float = 10.0
    heads_bytes_max: int = 32 * MIB
    body_bytes_per_s_min: int = 16 * KIB
    body_grace_s: float = 10.0
    bodies_bytes_max: int = 96 * MIB
    bodies_bytes_per_address_max: int = 64 * MIB
    links_bytes_max: int = 96 * MIB
    reader_stall_s: float = 30.0
    readers_bytes_max: int = 64 * MIB
    uploads_bytes_max: int = 64 * MIB


class ByteBudget:
    """Bytes that may be held at once, by whom and in all."""

    def __init__(self, bytes_max: int, bytes_per_key_max: int | None = None) -> None:
        self.bytes_max = bytes_max
        self.bytes_per_key_max = bytes_max if bytes_per_key_max is None else bytes_per_key_max
        self.held = 0
        """Bytes held now."""
        self._by_key: dict[str, int] = {}
        self._waiting: deque[tuple[str, int, asyncio.Future[None]]] = deque()

    def take(self, key: str, size: int) -> bool:
        """Count *size* more bytes of *key* (empty: of nobody in particular); False: that is beyond a bound, nothing is
        counted."""
        if self.held + size > self.bytes_max:
            return False
        if key:
            after = self._by_key.get(key, 0) + size
            if after > self.bytes_per_key_max:
                return False
            self._by_key[key] = after
        self.held += size
        return True

    def give(self, key: str, size: int) -> None:
        """Give back what was taken."""
        assert 0 <= size <= self.held, "nothing is given back twice"
        self.held -= size
        if key:
            left = self._by_key[key] - size
            if left:
                self._by_key[key] = left
            else:
                del self._by_key[key]
        if self._waiting:
            self._let_in()

    async def reserve(self, key: str, size: int, *, timeout_s: float) -> int:
        """Wait until there is room for *size* bytes of *key*, first come, first served; return what was counted.

        What alone is more than the bound counts as all of it: it waits until nothing else is held.

        Raises:
            Unavailable: there was no room for *timeout_s*.
        """
        size = min(size, self.bytes_max, self.bytes_per_key_max)
        if not self._waiting and self.take(key, size):
            return size
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (key, size, room)
        self._waiting.append(entry)
        try:
            await asyncio.wait((room,), timeout=timeout_s)
        except asyncio.CancelledError:
            if room.done():
                self.give(key, size)
            raise
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
        if not room.done():
            raise Unavailable("too much waits to be read here; try again", retry_after_s=AGAIN_AFTER_S)
        return size

    def _let_in(self) -> None:
        for entry in list(self._waiting):
            key, size, room = entry
            if self.held >= self.bytes_max:
                return
            if self.take(key, size):
                self._waiting.remove(entry)
                room.set_result(None)


class Watched(Protocol):
    """A connection that owes something: the rest of a head, a body or a message, or to read what waits for it."""

    def check(self, now_s: float) -> bool:
        """Look after it; False: it owes nothing any more."""


class HttpTraffic:
    """All connections of one server, and what they hold."""

    def __init__(self, bounds: Bounds | None = None, *, exempt: tuple[str, ...] = ()) -> None:
        """Count from nothing.

        Args:
            exempt: addresses or networks that stand for many callers, such as proxies: no bound of one address holds
                for them.
        """
        self.bounds = bounds = bounds or Bounds()
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most = bounds.connections_max
        self.connections_max = most if files == resource.RLIM_INFINITY else max(1, min(most, files - FILES_KEPT))
        self.connections = 0
        """Connections open now."""
        self.heads = ByteBudget(bounds.heads_bytes_max)
        """Heads of requests that are not complete."""
        self.bodies = ByteBudget(bounds.bodies_bytes_max, bounds.bodies_bytes_per_address_max)
        """Bodies of requests that are not answered."""
        self.messages = ByteBudget(bounds.links_bytes_max)
        """Messages of links that are not complete."""
        self.readers = ByteBudget(bounds.readers_bytes_max, max(1, bounds.readers_bytes_max // 2))
        """What was made for readers at once, beyond `PIECE_BYTES` each, and not taken by them."""
        self.uploads = ByteBudget(bounds.uploads_bytes_max, bounds.uploads_bytes_max // 2)
        """Bytes of bodies that are read as they come, between the connection and where they go."""
        self.turns = Turns()
        """What is made in one turn of the event loop."""
        self.refused: dict[str, int] = {}
        """Connections closed and requests refused for one of these bounds, by its name."""
        self._by_address: dict[str, int] = {}
        self._exempt: list[IPv4Network | IPv6Network] = [ip_network(text, strict=False) for text in exempt]
        self._watched: dict[Watched, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def key_of(self, peer: object) -> str:
        """Return whose a connection is, by its socket's other end; empty where that stands for many, or is not
        known."""
        if not isinstance(peer, tuple) or not peer:
            return ""
        host = str(peer[0])
        if self._exempt:
            try:
                address = ip_address(host.partition("%")[0])
            except ValueError:
                return ""
            if any(address in network for network in self._exempt):
                return ""
        return address_key(host)

    def enter(self, key: str) -> bool:
        """Count one more connection; False where that is beyond a bound."""
        if self.connections >= self.connections_max:
            self.refuse("connections_max")
            return False
        if key:
            before = self._by_address.get(key, 0)
            if before >= self.bounds.connections_per_address_max:
                self.refuse("connections_per_address_max")
                return False
            self._by_address[key] = before + 1
        self.connections += 1
        return True

    def leave(self, key: str) -> None:
        """Count a connection less."""
        self.connections -= 1
        if key:
            left = self._by_address[key] - 1
            if left:
                self._by_address[key] = left
            else:
                del self._by_address[key]

    def refuse(self, bound: str) -> None:
        """Count a refusal for *bound*, a setting's name."""
        self.refused[bound] = self.refused.get(bound, 0) + 1

    # -- what is owed --------------------------------------------------------------------------------------------------

    def watch(self, connection: Watched) -> None:
        """Look after *connection* from now on; nothing changes for one that is looked after."""
        self._watched[connection] = None

    def unwatch(self, connection: Watched) -> None:
        """Look no more."""
        self._watched.pop(connection, None)

    @property
    def watched(self) -> int:
        """Connections that owe something."""
        return len(self._watched)

    def sweep(self, now_s: float) -> None:
        """Look at every connection that owes something; *now_s* is the event loop's time."""
        self._look_after(self._watched.copy(), now_s)

    def _look_after(self, connections: Iterable[Watched], now_s: float) -> None:
        watched = self._watched
        for connection in connections:
            if connection in watched and not connection.check(now_s):
                watched.pop(connection, None)

    def start(self) -> Callable[[], None]:
        """Sweep every `SWEEP_S` on the running loop, a few connections a turn; returns what stops it."""
        loop = asyncio.get_running_loop()
        rest: Iterator[Watched] = iter(())

        def sweep() -> None:
            nonlocal rest
            if not (some := list(islice(rest, SWEPT_A_TURN))):
                self._timer = loop.call_later(SWEEP_S, begin)
                return
            self._timer = loop.call_later(0, sweep)
            self._look_after(some, loop.time())

        def begin() -> None:
            nonlocal rest
            rest = iter(list(self._watched))
            sweep()

        self._timer = loop.call_later(SWEEP_S, begin)
        return self._stop

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
