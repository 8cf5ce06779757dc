"""The live coordinators, and messages to and from them: batched per event-loop turn, dispatched by type."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from comptoir.cluster.messages import Message, MessagePiece, decode, encode
from comptoir.kit.bus import MESSAGE_BYTES_MAX, Bus, Traffic

log = logging.getLogger(__name__)

M = TypeVar("M")

PIECE_BYTES = MESSAGE_BYTES_MAX - 64
"""Piece size of a message that is too large to send in one; msgpack's overhead fits the rest."""

Handler = Callable[[bytes, Any], None]
"""Called with the sender's node id and the message; must return at once."""


class Switchboard:
    """One coordinator's connection to the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._handlers: dict[type, Handler] = {}
        self._outbox: dict[bytes, list[Message]] = {}
        self._pieces: dict[bytes, list[bytes]] = {}
        """Pieces of incomplete messages, by sender."""
        self._loop = asyncio.get_running_loop()
        self.on(MessagePiece, self._piece)
        self.here: frozenset[bytes] = frozenset()
        """The other live coordinators, as last read from the database."""
        self.on_change: list[Callable[[bool], None]] = []
        """Called when the bus goes down (False) or comes back (True)."""
        self.on_gap: list[Callable[[bytes], None]] = []
        """Called with a sender some of whose messages were lost."""

    @property
    def up(self) -> bool:
        """Whether messages can be sent now."""
        return self._bus.up

    @property
    def traffic(self) -> Traffic:
        """Traffic over the bus so far."""
        return self._bus.traffic

    def on(self, kind: type[M], handler: Callable[[bytes, M], None]) -> None:
        """Call *handler* with every message of *kind*; one handler per kind."""
        assert kind not in self._handlers
        self._handlers[kind] = handler

    async def start(self) -> None:
        """Open the bus."""
        await self._bus.start(on_message=self._received, on_change=self._changed, on_gap=self._missed)

    async def close(self) -> None:
        """Send what is pending, then close the bus."""
        self._flush()
        await self._bus.close()

    def send(self, node_id: bytes, message: Message) -> None:
        """Send *message*; never waits, and may be lost."""
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.setdefault(node_id, []).append(message)

    def tell_all(self, message: Message) -> None:
        """Send *message* to every live coordinator."""
        for node_id in self.here:
            self.send(node_id, message)

    def _flush(self) -> None:
        waiting, self._outbox = self._outbox, {}
        for node_id, messages in waiting.items():
            self._send(node_id, messages)

    def _send(self, node_id: bytes, messages: list[Message]) -> None:
        data = encode(messages)
        if len(data) <= MESSAGE_BYTES_MAX:
            self._bus.send(node_id, data)
            return
        for at in range(0, len(data), PIECE_BYTES):
            part = data[at : at + PIECE_BYTES]
            self._bus.send(node_id, encode([MessagePiece(part, at == 0, at + PIECE_BYTES >= len(data))]))

    def _piece(self, sender: bytes, piece: MessagePiece) -> None:
        if piece.first:
            self._pieces[sender] = []
        held = self._pieces.get(sender)
        if held is None:
            return  # Its beginning was lost, and a gap was reported.
        held.append(piece.data)
        if piece.last:
            del self._pieces[sender]
            self._received(sender, b"".join(held))

    def _received(self, sender: bytes, data: bytes) -> None:
        try:
            messages = decode(data)
        except msgspec.DecodeError as error:
            # Sent by another version: treat it as if the bus had dropped it.
            log.warning("coordinator %s said something this version does not know: %s", sender.hex(), error)
            self._missed(sender)
            return
        for message in messages:
            handler = self._handlers.get(type(message))
            if handler is None:
                continue
            try:
                handler(sender, message)
            except Exception:  # A loop's edge: one message must not cost those after it.
                log.exception("a %s of coordinator %s failed", type(message).__name__, sender.hex())

    def _changed(self, up: bool) -> None:
        log.log(logging.INFO if up else logging.WARNING, "the bus is %s", "there" if up else "lost; nothing else is")
        for call in self.on_change:
            call(up)

    def _missed(self, sender: bytes) -> None:
        self._pieces.pop(sender, None)
        for call in self.on_gap:
            call(sender)
