"""The bus over Redis or Valkey Streams: one inbox per node, two connections, everything of a turn in one write."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import hiredis
import msgspec

from comptoir.kit.bus.bus import (
    ENTRY_BYTES_MAX,
    INBOX_TTL_S,
    MESSAGE_BYTES_MAX,
    OUTGOING_BYTES_MAX,
    PEERS_MAX,
    OnChange,
    OnGap,
    OnMessage,
    Traffic,
)
from comptoir.kit.bus.numbers import BusEntry, Numberings, SeenNumbers
from comptoir.kit.bus.resp import Answer, RespConnection, command, connect, head, parse_address

log = logging.getLogger(__name__)

INBOX_ENTRIES_MAX = 10_000
"""Entries the server keeps of an inbox that nobody reads; beyond it the oldest go, and the reader hears of a gap. At
3,200 a second, 3 s."""

READ_ENTRIES_MAX = 256
"""Entries of one read: 64 MiB at the very most, 1 MiB usually."""

BLOCK_MS = 200
"""Longest wait of one read at the server: a read that says nothing for longer than this, and the watch, is lost."""

IN_FLIGHT_MAX = 8
"""Unanswered commands beyond which sends wait and are gathered, which makes a busy bus cheaper, not slower."""

REFRESH_S = 0.5
"""How often a node looks after its inbox: whether it is there, that it stays, and that what was read goes."""

CONNECT_S = 1.0
"""Longest time to connect and find the inbox."""

PAUSE_MIN_S, PAUSE_MAX_S = 0.05, 1.0
"""Waits between tries to connect: doubled each time."""

LEAVE_S = 0.5
"""Longest time to send what waits when the bus is closed."""

OWED_TRIES_MAX = 120
"""Tries to tell a receiver what it missed: a minute, then it counts as gone; its next message says so anyway."""


class _Peer:
    """A receiver: its inbox, the number of its next message, and what it does not know that it missed."""

    __slots__ = ("gathering", "head", "next", "owed", "tries")

    def __init__(self, head: bytes, first: int) -> None:
        self.head = head
        """The command that adds to its inbox, up to what is added."""
        self.next = first
        self.gathering: _BusChunk | None = None
        """Where its next message goes, if that follows upon the last."""
        self.owed = -1
        """Number before which messages were lost, until something from there on arrived; -1: none."""
        self.tries = 0


class _BusChunk:
    """Consecutive messages for one receiver, which become one entry of its inbox; without messages, a mark."""

    __slots__ = ("bus", "end", "first", "messages", "peer", "size")

    def __init__(self, bus: "RedisBus", peer: _Peer, first: int) -> None:
        self.bus = bus
        self.peer = peer
        self.first = self.end = first
        self.messages: list[bytes] = []
        self.size = 0

    def answered(self, reply: Any) -> None:
        """Note whether the entry is in the inbox."""
        self.bus.entered(self, reply)


class RedisBus:
    """One node's end; see `Bus`. Both connections live and die together, and so `up` is one word."""

    def __init__(self, address: str, node_id: bytes, *, post: str) -> None:
        """See `kit.bus.open_bus`."""
        self.up = False
        self.traffic = Traffic()
        self._address = parse_address(address)
        self._node_id = node_id
        self._prefix = f"comptoir:{post}:inbox:".encode()
        self._inbox = self._prefix + node_id.hex().encode()
        self._read_head = head(
            8, b"XREAD", b"COUNT", b"%d" % READ_ENTRIES_MAX, b"BLOCK", b"%d" % BLOCK_MS, b"STREAMS", self._inbox
        )
        self._numberings = Numberings()
        self._peers: dict[bytes, _Peer] = {}
        self._seen = SeenNumbers()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(BusEntry).decode
        self._nothing = self._encode(BusEntry(b"", 0, []))
        # Both always in one write: an inbox without an end would outlive its node.
        self._make = self._add(self._inbox, make=True) + self._framed(self._nothing)
        self._expire = command(b"EXPIRE", self._inbox, b"%d" % INBOX_TTL_S)
        self._position = b""
        """Id of the last entry read; empty before there was an inbox."""
        self._writing: RespConnection | None = None
        self._reading: RespConnection | None = None
        self._waiting: list[_BusChunk] = []
        self._held = 0
        """Bytes that wait or have no answer."""
        self._scheduled = False
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self, *, on_message: OnMessage, on_change: OnChange, on_gap: OnGap) -> None:
        """Begin to receive; see `Bus.start`."""
        assert self._keeper is None, "a bus is started once"
        self._on_message, self._on_change, self._on_gap = on_message, on_change, on_gap
        self._loop = asyncio.get_running_loop()
        tried = asyncio.Event()
        self._keeper = self._loop.create_task(self._keep(tried))
        await tried.wait()

    def send(self, node_id: bytes, data: bytes) -> None:
        """Send *data* to a node; see `Bus.send`."""
        peer = self._peers.get(node_id) or self._new_peer(node_id)
        number = peer.next
        peer.next = number + 1
        size = len(data)
        if not self.up or size > MESSAGE_BYTES_MAX or self._held + size > OUTGOING_BYTES_MAX:
            self._owe(peer)
            self.traffic.dropped += 1
            return
        chunk = peer.gathering
        if chunk is None or chunk.end != number or chunk.size + size > ENTRY_BYTES_MAX:
            chunk = self._new_chunk(peer, number)
        chunk.messages.append(data)
        chunk.end = number + 1
        chunk.size += size
        self._held += size

    async def close(self) -> None:
        """Send what waits and leave; see `Bus.close`."""
        if self._closed:
            return
        self._closed = True
        writing = self._writing
        if self.up and writing is not None:
            try:
                async with asyncio.timeout(LEAVE_S):
                    self._write()
                    await writing.ask(command(b"DEL", self._inbox))
            except (OSError, TimeoutError, hiredis.ReplyError) as error:
                log.info("the bus was left without a word: %s", error)
        self.up = False
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))

    # -- the two connections -------------------------------------------------------------------------------------

    async def _keep(self, tried: asyncio.Event) -> None:
        """Connect, wait until a connection is lost, say so, and begin anew."""
        pause_s = PAUSE_MIN_S
        try:
            while True:
                try:
                    async with asyncio.timeout(CONNECT_S):
                        lost = await self._join()
                    tried.set()
                    pause_s = PAUSE_MIN_S
                    reason = await self._stay(lost)
                except TimeoutError:
                    reason = f"no answer within {CONNECT_S:g} s"
                except (OSError, hiredis.ReplyError) as error:
                    reason = str(error) or type(error).__name__
                self._part(reason, first=pause_s == PAUSE_MIN_S)
                tried.set()
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, PAUSE_MAX_S)
        finally:
            tried.set()
            self._disconnect("the bus is closed")

    async def _join(self) -> bool:
        """Connect twice and find the inbox or make it; return whether something may have been lost."""
        writing = self._writing = await connect(self._address)
        self._reading = await connect(self._address)
        # Adding to one's own inbox also shows that the server takes writes, which a full or a read-only one does not.
        found: bytes | None
        found, _ = await writing.ask(self._add(self._inbox) + self._framed(self._nothing), self._expire)
        lost = bool(self._position)
        if found is None:
            found, _ = await writing.ask(self._make, self._expire)
        elif self._position:
            lost = _place(found) <= _place(self._position)
        if lost or not self._position:
            assert found is not None
            self._position = found
        return lost

    async def _stay(self, lost: bool) -> str:
        """Be up until a connection is lost; return why it was."""
        writing, reading = self._writing, self._reading
        assert writing is not None and reading is not None
        self.up = True
        self._read()
        refresh = self._loop.create_task(self._look_after())
        log.info("the bus is up")
        self._tell(self._on_change, True)
        if lost:
            self._all_lost()
        # Whether the last messages before a loss arrived is not known: everybody hears where the numbers are.
        for peer in self._peers.values():
            self._owe(peer)
        self._mark()
        try:
            await asyncio.wait((writing.lost, reading.lost), return_when=asyncio.FIRST_COMPLETED)
        finally:
            refresh.cancel()
        return (writing.lost if writing.lost.done() else reading.lost).result()

    def _part(self, reason: str, *, first: bool) -> None:
        self._disconnect(reason)
        if first:  # Of the tries that follow only the first failure is worth a line.
            log.warning("the bus is down: %s", reason)
        self.traffic.dropped += sum(len(chunk.messages) for chunk in self._waiting)
        for chunk in self._waiting:
            chunk.peer.gathering = None
        self._waiting.clear()
        self._held = 0
        if self.up:
            self.up = False
            self._tell(self._on_change, False)

    def _disconnect(self, reason: str) -> None:
        for connection in (self._writing, self._reading):
            if connection is not None:
                connection.end(reason)
        self._writing = self._reading = None

    async def _look_after(self) -> None:
        """Keep the inbox alive, cut off what was read, and tell receivers what they missed."""
        while True:
            await asyncio.sleep(REFRESH_S)
            if self._writing is not None:
                trim = command(b"XTRIM", self._inbox, b"MINID", b"~", self._position)
                self._writing.send(self._expire + trim, [self._refreshed, self._trimmed])
            self._mark()

    def _refreshed(self, reply: Any) -> None:
        if reply == 0 and self._writing is not None and not self._closed:
            log.warning("the bus lost this coordinator's inbox; creating it again")
            self._writing.send(self._make + self._expire, [self._made, self._trimmed])
        else:
            self._trimmed(reply)

    def _made(self, reply: Any) -> None:
        self._trimmed(reply)
        if isinstance(reply, bytes):
            self._position = reply
            self._all_lost()

    def _trimmed(self, reply: Any) -> None:
        if isinstance(reply, Exception) and self._writing is not None:
            self._writing.end(str(reply))

    # -- sending -------------------------------------------------------------------------------------------------

    def _new_peer(self, node_id: bytes) -> _Peer:
        if len(self._peers) >= PEERS_MAX:
            del self._peers[next(iter(self._peers))]
        peer = self._peers[node_id] = _Peer(self._add(self._prefix + node_id.hex().encode()), self._numberings.begin())
        return peer

    def _new_chunk(self, peer: _Peer, first: int) -> _BusChunk:
        chunk = peer.gathering = _BusChunk(self, peer, first)
        self._waiting.append(chunk)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return chunk

    def _flush(self) -> None:
        self._scheduled = False
        # With enough under way, the next answer flushes, and until then entries grow.
        if self._waiting and self._writing is not None and len(self._writing.due) < IN_FLIGHT_MAX:
            self._write()

    def _write(self) -> None:
        """Write all that waits, in one piece."""
        parts: list[bytes] = []
        answers: list[Answer] = []
        for chunk in self._waiting:
            chunk.peer.gathering = None
            parts.append(chunk.peer.head)
            parts.append(self._framed(self._encode(BusEntry(self._node_id, chunk.first, chunk.messages))))
            answers.append(chunk.answered)
            self.traffic.sent += len(chunk.messages)
        self._waiting.clear()
        if self._writing is not None:
            self._writing.send(b"".join(parts), answers)

    def entered(self, chunk: _BusChunk, reply: Any) -> None:
        """Note the answer to an entry that was added: its id, None without an inbox, or an error."""
        self._held -= chunk.size
        peer = chunk.peer
        if type(reply) is bytes:
            if chunk.first >= peer.owed:
                peer.owed = -1
        elif reply is None:
            if chunk.messages:
                peer.owed, peer.tries = chunk.end, OWED_TRIES_MAX
        elif self._writing is not None:
            self._writing.end(str(reply))
        if self._waiting:
            self._flush()

    def _owe(self, peer: _Peer) -> None:
        peer.owed, peer.tries = peer.next, OWED_TRIES_MAX

    def _mark(self) -> None:
        """Send a mark to every receiver that missed something and was sent nothing since."""
        for peer in self._peers.values():
            if peer.owed >= 0 and peer.gathering is None:
                peer.tries -= 1
                if peer.tries < 0:
                    peer.owed = -1
                else:
                    self._new_chunk(peer, peer.next)

    def _add(self, inbox: bytes, *, make: bool = False) -> bytes:
        """Return the command that adds an entry to *inbox*, up to the entry."""
        words = [b"XADD", inbox, b"MAXLEN", b"~", b"%d" % INBOX_ENTRIES_MAX, b"*", b"e"]
        if not make:
            words.insert(2, b"NOMKSTREAM")
        return head(len(words) + 1, *words)

    @staticmethod
    def _framed(data: bytes) -> bytes:
        return b"$%d\r\n%b\r\n" % (len(data), data)

    # -- receiving -----------------------------------------------------------------------------------------------

    def _read(self) -> None:
        if self._reading is not None:
            position = self._position
            self._reading.send(self._read_head + self._framed(position), [self._arrived])

    def _arrived(self, reply: Any) -> None:
        if reply is None:
            self._read()
            return
        if isinstance(reply, Exception):
            if self._reading is not None:
                self._reading.end(str(reply))
            return
        entries = reply[0][1]
        self._position = entries[-1][0]
        # Asked before it is handed out: the server works while this process does.
        self._read()
        for _, fields in entries:
            try:
                entry = self._decode(fields[1])
            except (msgspec.DecodeError, TypeError, IndexError) as error:
                log.error("the bus's inbox holds what no coordinator wrote: %s", error)
                continue
            if entry.sender:
                self._take(entry)

    def _take(self, entry: BusEntry) -> None:
        messages = entry.messages
        known, lost = self._seen.look(entry.sender, entry.first, len(messages))
        if lost:
            self._lost(entry.sender)
        for data in messages[known:] if known else messages:
            self.traffic.received += 1
            self._tell(self._on_message, entry.sender, data)

    def _all_lost(self) -> None:
        for sender in self._seen.senders():
            self._lost(sender)

    def _lost(self, sender: bytes) -> None:
        self.traffic.gaps += 1
        self._tell(self._on_gap, sender)

    def _tell(self, callback: Callable[..., None], *facts: object) -> None:
        if self._closed:
            return
        try:
            callback(*facts)
        except Exception:  # The bus's edge: what a receiver does wrong must not cost the next one its message.
            log.exception("a receiver of the bus failed")


def _place(entry_id: bytes) -> tuple[int, int]:
    """Return an entry's id as it is ordered."""
    ms, _, count = entry_id.partition(b"-")
    return int(ms), int(count)
