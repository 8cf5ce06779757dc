"""One WebSocket: uvicorn's protocol, whose half-sent messages are bounded in bytes and time, as are peers that never
read."""

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from comptoir.kit.http.bounds import HttpTraffic

FRAGMENT_BYTES = 64
"""What each fragment of a message costs beside its bytes: without it, empty ones could be sent for ever."""

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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Go on with a connection that asked for a WebSocket."""
        self._key = self._traffic.key_of(transport.get_extra_info("peername"))
        super().connection_made(transport)
        self._traffic.watch(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back all that was counted."""
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
        """Take what came; count what is left of it that is no whole message."""
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
        if not self._since_s or self.read_paused:
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
