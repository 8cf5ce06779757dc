"""One WebSocket: uvicorn's protocol, whose half-sent messages are bounded in bytes and time, as are peers that never
read."""

import asyncio
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from comptoir.kit.http.bounds import HttpTraffic
from comptoir.kit.http.connection import READ_IN_TURNS_BYTES
from comptoir.kit.http.cork import CorkedTransport

FRAGMENT_BYTES = 64
"""What each fragment of a message costs beside its bytes: without it, empty ones could be sent for ever."""

PARSE_BYTES = 3 << 10
"""What it costs to look whether a piece makes a message complete, some 40 us, in bytes of a turn. 5,000 links that each
send a byte at the same moment kept all others waiting for 0.2 s."""

PIECES_MAX = 16
"""Pieces that wait for a turn before nothing more is read."""

PONGS_UNREAD_MAX = 64
"""Pings answered while the peer takes nothing of what is sent to it; with one more it is cut."""


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket, counted by *traffic*; it takes over the place of the connection that it began on."""

    def __init__(self, *args: Any, traffic: HttpTraffic, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._traffic = traffic
        self._key = ""
        self._counted = 0
        """Bytes of an incomplete message, counted in `HttpTraffic.messages`."""
        self._fragments = 0
        self._moved = 0
        self._since_s = 0.0
        self._pongs_unread = 0
        self._waiting: list[bytes] = []
        """Pieces that came and wait for a turn of the event loop."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Go on with a connection that asked for a WebSocket."""
        self._key = self._traffic.key_of(transport.get_extra_info("peername"))
        super().connection_made(transport)
        self._traffic.watch(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back all that was counted."""
        if self._waiting:
            self._take(self._waited())
        self._traffic.unwatch(self)
        self._count(0)
        self._traffic.leave(self._key)
        super().connection_lost(exc)
        # A parser is a generator that holds its connection: without this, half messages would wait for the cycle
        # collector, which runs rarely here (5,000 links that came again and again: 490 MiB, now 310).
        self.conn.parser.close()
        self.conn.reader.buffer.clear()
        self.frames = []

    def data_received(self, data: bytes) -> None:
        """Take what came; more of a message that is incomplete, or much of one, waits for its turn."""
        size = len(data)
        if self._waiting:
            self._waiting.append(data)
        elif not self._counted and size < READ_IN_TURNS_BYTES:
            self._take(data)
            return
        else:
            turn = self._traffic.turns.spend(self._key, size + PARSE_BYTES)
            if turn is None:
                self._take(data)
                return
            self._waiting.append(data)
            turn.add_done_callback(self._turn_came)
        if not self._count(self._counted + size):
            self._cut("links_bytes_max")
        elif size >= READ_IN_TURNS_BYTES or len(self._waiting) >= PIECES_MAX:
            cast(CorkedTransport, self.transport).hold_reading()

    def _turn_came(self, _: "asyncio.Future[None]") -> None:
        if self._waiting:
            cast(CorkedTransport, self.transport).release_reading(resume=not self.read_paused)
            self._take(self._waited())

    def _waited(self) -> bytes:
        pieces, self._waiting = self._waiting, []
        return b"".join(pieces)

    def _take(self, data: bytes) -> None:
        """Parse what came; count what is left of it that is no whole message."""
        super().data_received(data)
        pending = len(self.conn.reader.buffer) + self._fragments
        if pending or self._counted:
            self._moved += len(data)
            self._traffic.watch(self)
            if not self._count(pending):
                self._cut("links_bytes_max")

    def _count(self, pending: int) -> bool:
        more = pending - self._counted
        if more > 0 and not self._traffic.messages.take("", more):
            return False
        if more < 0:
            self._traffic.messages.give("", -more)
        self._counted = pending
        return True

    def handle_text(self, event: Frame) -> None:
        """Take the first frame of a message."""
        self._fragments = len(event.data) + FRAGMENT_BYTES
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """Take the first frame of a message."""
        self._fragments = len(event.data) + FRAGMENT_BYTES
        super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        """Take a further one."""
        self._fragments += len(event.data) + FRAGMENT_BYTES
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """A message is complete."""
        self._fragments = self._moved = 0
        self._since_s = 0.0
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer, unless the peer takes no answers."""
        self._pongs_unread = 0 if self.writable.is_set() else self._pongs_unread + 1
        if self._pongs_unread > PONGS_UNREAD_MAX:
            self._cut("reader_stall_s")
        else:
            super().handle_ping()

    def handle_parser_exception(self) -> None:
        """Close with a reason; a peer that breaks the protocol before it was let in is cut."""
        if self.conn.close_sent is None:
            self.transport.abort()
        else:
            super().handle_parser_exception()

    async def send(self, message: Any) -> None:
        """Send; a handshake that is refused with an answer is complete, and no error of the application."""
        await super().send(message)
        if self.close_sent:
            self.handshake_complete = True

    def check(self, now_s: float) -> bool:
        """Cut it if its handshake or its half message does not come in time."""
        bounds = self._traffic.bounds
        if self.handshake_complete and not self._counted:
            return False
        if not self._since_s or self.read_paused or self._waiting:
            self._since_s, self._moved = now_s, 0
            return True
        waited_s = now_s - self._since_s
        if not self.handshake_complete:
            if waited_s < bounds.head_s:
                return True
            self._cut("head_s")
            return False
        if waited_s >= bounds.body_grace_s:
            if self._moved < bounds.body_bytes_per_s_min * waited_s:
                self._cut("body_bytes_per_s_min")
                return False
            self._since_s, self._moved = now_s, 0
        return True

    def _cut(self, bound: str) -> None:
        if not self.transport.is_closing():
            self._traffic.refuse(bound)
            self.transport.abort()
