"""A bus inside one event loop: nodes meet at an exchange. For tests, and for several nodes in one process."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from comptoir.kit.bus.bus import MESSAGE_BYTES_MAX, OUTGOING_BYTES_MAX, PEERS_MAX, OnChange, OnGap, OnMessage, Traffic
from comptoir.kit.bus.numbers import BusEntry, Numberings, SeenNumbers

log = logging.getLogger(__name__)


class Exchange:
    """Where the local buses of one event loop meet; it can be cut and mended as a server goes and comes back."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, LocalBus] = {}
        """Everybody who can be reached, by node id."""
        self.up = True
        self._losing = 0

    def cut(self) -> None:
        """Take the bus down: what waits and what is sent is lost."""
        if self.up:
            self.up = False
            for node in list(self.nodes.values()):
                node.down()

    def mend(self) -> None:
        """Bring the bus back; whoever missed something hears of the gap."""
        if not self.up:
            self.up = True
            for node in list(self.nodes.values()):
                node.back()
            for node in list(self.nodes.values()):
                node.mark()

    def lose(self, messages: int) -> None:
        """Lose the next *messages* on their way; the receivers hear of the gap in the turn after."""
        self._losing += messages

    def loses(self) -> bool:
        """Tell whether the message at hand is to be lost; each asking counts."""
        if not self._losing:
            return False
        self._losing -= 1
        return True


class LocalBus:
    """One node at an `Exchange`."""

    def __init__(self, exchange: Exchange, node_id: bytes) -> None:
        self.up = False
        self.traffic = Traffic()
        self._exchange = exchange
        self._node_id = node_id
        self._numberings = Numberings()
        self._next: dict[bytes, int] = {}
        self._seen = SeenNumbers()
        self._waiting: deque[tuple[bytes, int, bytes]] = deque()
        self._held = 0
        self._scheduled = False

    async def start(self, *, on_message: OnMessage, on_change: OnChange, on_gap: OnGap) -> None:
        """Begin to receive; see `Bus.start`."""
        assert self._node_id not in self._exchange.nodes, "a bus is started once"
        self._on_message, self._on_change, self._on_gap = on_message, on_change, on_gap
        self._loop = asyncio.get_running_loop()
        self._exchange.nodes[self._node_id] = self
        if self._exchange.up:
            self.back()
            # Whoever sent something here before is heard of now, as a server's senders are within a second.
            for node in list(self._exchange.nodes.values()):
                node.mark(self._node_id)

    def send(self, node_id: bytes, data: bytes) -> None:
        """Send *data* to a node; see `Bus.send`."""
        number = self._next.get(node_id)
        if number is None:
            if len(self._next) >= PEERS_MAX:
                del self._next[next(iter(self._next))]
            number = self._numberings.begin()
        self._next[node_id] = number + 1
        if not self.up or len(data) > MESSAGE_BYTES_MAX or self._held + len(data) > OUTGOING_BYTES_MAX:
            self.traffic.dropped += 1
            if self.up:
                self._loop.call_soon(self.mark, node_id)
            return
        self._held += len(data)
        self._waiting.append((node_id, number, data))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    async def close(self) -> None:
        """Send what waits and leave; see `Bus.close`."""
        if self._exchange.nodes.get(self._node_id) is self:
            self._flush()
            self.up = False
            del self._exchange.nodes[self._node_id]

    # -- what the exchange says ----------------------------------------------------------------------------------

    def down(self) -> None:
        """Lose what waits, and say so."""
        self.traffic.dropped += len(self._waiting)
        self._waiting.clear()
        self._held = 0
        if self.up:
            self.up = False
            self._tell(self._on_change, False)

    def back(self) -> None:
        """Go on."""
        self.up = True
        self._tell(self._on_change, True)

    def mark(self, node_id: bytes | None = None) -> None:
        """Tell *node_id*, or everybody that was sent something, the number of the next message."""
        self._flush()
        for known, number in list(self._next.items()):
            receiver = self._exchange.nodes.get(known)
            if self.up and receiver is not None and node_id in (None, known):
                receiver.take(BusEntry(self._node_id, number, []))

    def take(self, entry: BusEntry) -> None:
        """Receive."""
        known, lost = self._seen.look(entry.sender, entry.first, len(entry.messages))
        if lost:
            self.traffic.gaps += 1
            self._tell(self._on_gap, entry.sender)
        for data in entry.messages[known:]:
            self.traffic.received += 1
            self._tell(self._on_message, entry.sender, data)

    def _flush(self) -> None:
        self._scheduled = False
        # What receivers send meanwhile waits for the next turn, so that two who answer each other stop nobody.
        for _ in range(len(self._waiting)):
            if not self._waiting:
                break
            node_id, number, data = self._waiting.popleft()
            self._held -= len(data)
            if not self.up:  # A receiver of this very turn cut the exchange.
                self.traffic.dropped += 1
                continue
            self.traffic.sent += 1
            receiver = self._exchange.nodes.get(node_id)
            if receiver is None:
                continue
            if self._exchange.loses():
                self._loop.call_soon(self.mark, node_id)
            else:
                receiver.take(BusEntry(self._node_id, number, [data]))

    def _tell(self, callback: Callable[..., None], *facts: object) -> None:
        try:
            callback(*facts)
        except Exception:  # The bus's edge: what a receiver does wrong must not cost the next one its message.
            log.exception("a receiver of the bus failed")
