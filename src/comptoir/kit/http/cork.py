"""One system call per answer: an HTTP protocol that joins all writes of one event loop tick.

Uvicorn writes head and body separately, and uvloop sends each at once; under load the two sends were a quarter of the
coordinator's CPU (py-spy, bench_lives). Events of a stream that come in the same tick are joined as well. An answer
that is whole from the start takes a shorter way (`answer`).
"""

import asyncio
import socket
import struct
from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from comptoir.kit.http.request import Receive, Send

KEPT_BYTES_MAX = 16 << 10
"""What is kept beyond this is sent at once, so that the answer's maker hears in time that its reader takes no more."""

OLD = "1.0"
"""The version of HTTP whose clients know no chunks: they read until the connection ends."""

_IN_NO_VALUE = bytes([*range(9), *range(10, 32), 127])
"""What no value of a header may have: uvicorn's `HEADER_VALUE_RE`, which takes three times as long to look for it."""

RESET_AT_CLOSE = struct.pack("ii", 1, 0)
"""For SO_LINGER: a connection that is closed ends with a reset."""


class CorkedTransport:
    """A transport that buffers `write` until the end of the loop's tick; everything else is passed through."""

    __slots__ = ("_kept", "_loop", "_pieces", "_transport", "is_closing", "reading_held")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self._kept = 0
        self.is_closing = transport.is_closing
        self.reading_held = False
        """Whether nothing is read until `release_reading`, also where the body's reader asks for more."""

    def hold_reading(self) -> None:
        """Read nothing until `release_reading`."""
        if not self.is_closing():
            self.reading_held = True
            self._transport.pause_reading()

    def release_reading(self, *, resume: bool) -> None:
        """Let reading go on; *resume*: at once, as nothing else keeps it back."""
        self.reading_held = False
        if resume:
            self.resume_reading()

    def resume_reading(self) -> None:
        """Read on, unless that is held."""
        if not self.reading_held and not self.is_closing():
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Buffer *data*; the buffer is sent before the loop waits again, and at once if it is large."""
        pieces = self._pieces
        if not pieces:
            self._loop.call_soon(self.flush)
        pieces.append(data)
        self._kept += len(data)
        if self._kept >= KEPT_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Send the buffer now."""
        pieces = self._pieces
        if pieces:
            self._pieces, self._kept = [], 0
            if not self.is_closing():
                self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def close(self) -> None:
        """Send the buffer, then close."""
        self.flush()
        self._transport.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Send the buffer, then pass the connection to *protocol* (a WebSocket upgrade)."""
        self.flush()
        self._transport.set_protocol(protocol)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Cycle(RequestResponseCycle):
    """One request and its answer on a connection, as uvicorn's, and without an access log.

    Made from its connection: to pass what uvicorn's takes costs as much as to keep it.
    """

    def __init__(self, connection: HttpToolsProtocol, *, keep_alive: bool, waits: bool) -> None:
        """Begin a request.

        Args:
            keep_alive: whether the connection goes on after the answer.
            waits: whether the client sends the body only when it is asked to (``Expect: 100-continue``).
        """
        self.scope = connection.scope
        self.transport = connection.transport
        self.flow = connection.flow
        self.logger, self.access_logger, self.access_log = connection.logger, connection.access_logger, False
        self.default_headers = connection.server_state.default_headers
        self.message_event = asyncio.Event()
        self.on_response = connection.on_response_complete
        self.disconnected = False
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = waits
        self.body = bytearray()
        self.more_body = True
        self.response_started = self.response_complete = False
        self.chunked_encoding: bool | None = None
        self.expected_content_length = 0


@lru_cache(512)
def _head(status: int, names: tuple[bytes, ...]) -> bytes | None:
    """Return the head of an answer, to be filled with the headers' values; None: it says what becomes of the
    connection, which uvicorn has to know.

    Raises:
        RuntimeError: a name has characters that none may have.
    """
    if bad := [name for name in names if HEADER_RE.search(name)]:
        raise RuntimeError(f"no name of a header: {bad[0]!r}")
    if any(name.lower() in (b"connection", b"transfer-encoding") for name in names):
        return None
    lines = [name.lower().replace(b"%", b"%%") + b": %b\r\n" for name in names]
    return STATUS_LINE[status].replace(b"%", b"%%") + b"".join(lines) + b"\r\n"


def answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
    """Write a whole answer and its end to the cycle that *send* belongs to; False: it has to be sent as two messages.

    Uvicorn looks at each header with two regular expressions and keeps count of the body; here *headers* have a right
    ``content-length``, or neither it nor a body is due (204), and all values are looked at together. A tenth of the
    Python instructions of a job's life. What is rare goes uvicorn's way: HEAD, a connection that closes, one whose
    client does not read.

    Raises:
        RuntimeError: a header has characters that none may have.
    """
    cycle = getattr(send, "__self__", None)
    if (
        type(cycle) is not Cycle
        or cycle.response_started
        or cycle.disconnected
        or not cycle.keep_alive
        or cycle.flow.write_paused
        or cycle.scope["method"] == "HEAD"
    ):
        return False
    names, values = zip(*cycle.default_headers, *headers, strict=True)
    head = _head(status, names)
    if head is None:
        return False
    said = b"".join(values)
    if len(said.translate(None, _IN_NO_VALUE)) != len(said):
        raise RuntimeError("a header's value has characters that none may have")
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(head % values + body)
    cycle.message_event.set()
    cycle.on_response()
    return True


def until_closed(send: Send) -> Send:
    """Return how an answer of unknown length is sent: for HTTP/1.0 as it is, to the end of its connection.

    Uvicorn sends chunks to everybody; such a client would take their lengths for part of the answer.
    """
    cycle = getattr(send, "__self__", None)
    if type(cycle) is not Cycle or cycle.scope["http_version"] != OLD:
        return send
    cycle.chunked_encoding = False

    async def unframed(message: Any) -> None:
        # Uvicorn sends what is expected; each piece is, and nothing after it.
        cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return unframed


def cut_short(send: Send) -> None:
    """Have an answer that breaks off end with a reset, where its end would look like that of a whole one."""
    cycle = getattr(send, "__self__", None)
    if type(cycle) is Cycle and cycle.scope["http_version"] == OLD:
        found = cycle.transport.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        cycle.transport.abort()


def body_at_hand(receive: Receive) -> bytes | None:
    """Return the body, if all of it came with its head as most do; None: it has to be received."""
    cycle = getattr(receive, "__self__", None)
    if type(cycle) is not Cycle or cycle.more_body or cycle.disconnected or cycle.response_complete:
        return None
    body = bytes(cycle.body)
    cycle.body = bytearray()
    cycle.message_event.clear()
    if cycle.flow.read_paused:
        cycle.flow.resume_reading()
    return body
