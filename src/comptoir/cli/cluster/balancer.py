"""A TCP balancer for development and tests: a connection goes to the least busy backend, bytes pass unchanged.

It knows no HTTP; who does may tell it whom to pass by. A backend that refuses a connection is skipped for a second and
the next one is tried; bytes wait in the sender's socket, not here (`HIGH_WATER_BYTES`); a half-closed connection stays
open the other way; a reset is passed on as one. In production take HAProxy, nginx or your cloud's (docs/operating.md).
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from comptoir.kit.http import ACCEPT_TURNS

log = logging.getLogger(__name__)

HIGH_WATER_BYTES = 64 * 1024
"""Bytes held for a slow side before the other is no longer read."""
CONNECT_WITHIN_S = 1.0
"""A backend on this machine accepts in less than a millisecond, or its line is full."""
SKIPPED_S = 1.0
"""How long a backend that refused is not tried while there are others."""
BACKLOG = 4096

RESET_AT_CLOSE = struct.pack("ii", 1, 0)
"""Linger for no time: the kernel sends a reset, so that an end that was cut does not look like one that was reached."""

Address = tuple[str, int]


@dataclass(slots=True)
class Backend:
    """A place that connections go to."""

    address: Address
    open: bool = True
    """False: no new connections; those it has go on."""
    connections: int = 0
    served: int = 0
    """Connections it ever had."""
    skipped_until_s: float = 0.0
    """In the loop's time."""


class Balancer:
    """Listens on one address and spreads connections over `backends`."""

    def __init__(self, listener: socket.socket, backends: Iterable[Address] = ()) -> None:
        """Take over *listener*, bound and not yet listened on; connections are accepted from `start` on."""
        self._listener = listener
        self.backends = [Backend(address) for address in backends]
        self.refused = 0
        """Connections that no backend took."""
        self._server: asyncio.Server | None = None
        self._sides: set[_Side] = set()
        self._joining: set[asyncio.Task[None]] = set()
        """Of clients that have no backend yet."""
        self._turn = 0

    @property
    def address(self) -> Address:
        """Where it listens."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    @property
    def url(self) -> str:
        """The same as a URL."""
        host, port = self.address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def connections(self) -> int:
        """Connections of clients that are open now."""
        return sum(side.client for side in self._sides)

    async def start(self) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Side(self, client=True), sock=self._listener, backlog=BACKLOG)

    async def stop(self) -> None:
        """Accept nobody any more and cut what is open."""
        if self._server is not None:
            self._server.close()
            turns = ACCEPT_TURNS
            while self._sides or self._joining or turns > 0:
                for task in self._joining:
                    task.cancel()
                for side in list(self._sides):
                    side.abort()
                await asyncio.sleep(0)
                turns -= 1
            await self._server.wait_closed()
        self._listener.close()

    def offer(self, address: Address, *, open: bool = True) -> None:
        """Add a backend, or say that it takes new connections (again), or not any more."""
        backend = next((one for one in self.backends if one.address == address), None)
        if backend is None:
            self.backends.append(Backend(address, open))
            return
        backend.open = open
        backend.skipped_until_s = 0.0

    def pass_by(self, address: Address, *, for_s: float) -> None:
        """Give a backend no connections for *for_s* seconds while there are others; 0 lifts that."""
        for one in self.backends:
            if one.address == address:
                one.skipped_until_s = asyncio.get_running_loop().time() + for_s

    def remove(self, address: Address) -> None:
        """Forget a backend; its connections go on."""
        self.backends = [one for one in self.backends if one.address != address]

    def candidates(self) -> list[Backend]:
        """Return backends to try, in order: least busy first, in turn among equals; skipped last, closed never."""
        now_s = asyncio.get_running_loop().time()
        self._turn += 1
        count = max(1, len(self.backends))
        found = [(position, one) for position, one in enumerate(self.backends) if one.open]
        found.sort(key=lambda at: (at[1].skipped_until_s > now_s, at[1].connections, (at[0] + self._turn) % count))
        return [one for _, one in found]

    async def connect(self, client: "_Side") -> None:
        """Find a backend for *client* and join the two; without any the client's connection is reset."""
        loop = asyncio.get_running_loop()
        for backend in self.candidates():
            side = _Side(self, client=False, backend=backend)
            # Counted before it stands, or a hundred clients that come at once all choose the same.
            backend.connections += 1
            try:
                async with asyncio.timeout(CONNECT_WITHIN_S):
                    await loop.create_connection(partial(_itself, side), *backend.address)
            except OSError as error:
                if side.transport is None:
                    backend.connections -= 1
                backend.skipped_until_s = loop.time() + SKIPPED_S
                log.info("%s:%d takes no connection: %s", *backend.address, error)
                continue
            backend.served += 1
            side.join(client)
            return
        self.refused += 1
        client.abort()


def _itself(side: "_Side") -> "_Side":
    return side


@dataclass(slots=True, eq=False)
class _Side(asyncio.Protocol):
    """One of the two ends of a connection that goes through."""

    balancer: Balancer
    client: bool
    backend: Backend | None = None
    transport: asyncio.Transport | None = None
    peer: "_Side | None" = None
    early: bytearray = field(default_factory=bytearray, repr=False)
    """What came before there was a peer."""
    ended: bool = False
    """It sends nothing any more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are no subclass of asyncio's, and behave like one.
        self.transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self.balancer._sides.add(self)
        if self.client:
            joining = self.balancer._joining
            task = asyncio.get_running_loop().create_task(self.balancer.connect(self))
            joining.add(task)
            task.add_done_callback(joining.discard)

    def join(self, client: "_Side") -> None:
        """Let bytes flow between this end, a backend's, and *client*."""
        if client.transport is None or client.transport.is_closing():
            # The client left while the backend was looked for.
            self.abort()
            return
        self.peer, client.peer = client, self
        for side in (client, self):
            assert side.transport is not None
            if side.early:
                side.data_received(bytes(side.early))
                side.early.clear()
            side.transport.resume_reading()
            if side.ended:
                side.eof_received()

    def data_received(self, data: bytes) -> None:
        if self.peer is None:
            # One read at most: the rest waits in the kernel until both ends stand.
            self.early += data
            if self.transport is not None:
                self.transport.pause_reading()
        elif self.peer.transport is not None:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        peer = self.peer
        if peer is None or peer.transport is None or self.transport is None:
            return True
        if peer.ended:
            # Both have said all: what is still buffered is written out, then both are closed.
            peer.transport.close()
            self.transport.close()
        elif not peer.transport.is_closing():
            peer.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None and not self.peer.transport.is_closing():
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.balancer._sides.discard(self)
        if self.backend is not None:
            self.backend.connections -= 1
        peer, self.peer = self.peer, None
        if peer is not None and peer.transport is not None:
            peer.peer = None
            if error is None and self.ended:
                peer.transport.close()
            else:
                # Whoever streams to a client that hung up has to hear so at once.
                peer.abort()

    def abort(self) -> None:
        """Cut this end with a reset."""
        if self.transport is None:
            return
        with contextlib.suppress(OSError):
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        self.transport.abort()
