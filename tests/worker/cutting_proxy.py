"""A TCP proxy on 127.0.0.1 that breaks connections in the middle of whatever is on the wire."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from tests.tcp import serving

PIECE_BYTES = 512
"""Bytes moved at once: small, so that a cut falls inside messages."""


class CuttingProxy:
    """Forwards to *port*; each connection is reset after as many bytes from the client as *allow* says, or, with
    *both*, both ways together."""

    def __init__(self, port: int, allow: Callable[[], int], *, both: bool = False) -> None:
        self.url = ""
        self.cuts = 0
        self._port = port
        self._allow = allow
        self._both = both
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Reset every connection now."""
        for writer in self._writers:
            writer.transport.abort()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._port)
        left = self._allow()
        self._writers.add(writer)

        async def move(source: asyncio.StreamReader, target: asyncio.StreamWriter, *, counted: bool) -> None:
            nonlocal left
            while piece := await source.read(PIECE_BYTES):
                if counted:
                    piece, left = piece[:left], left - len(piece)
                target.write(piece)
                await target.drain()
                if left <= 0:
                    self.cuts += 1
                    return

        ways = [
            asyncio.create_task(move(reader, back_writer, counted=True)),
            asyncio.create_task(move(back_reader, writer, counted=self._both)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers.discard(writer)
            for one in (writer, back_writer):
                one.transport.abort()
            for way in ways:
                way.cancel()
            # A broken pipe is what this proxy is for; it only must not go unretrieved.
            await asyncio.gather(*ways, return_exceptions=True)


@contextlib.asynccontextmanager
async def serve_cutting(port: int, allow: Callable[[], int], *, both: bool = False) -> AsyncIterator[CuttingProxy]:
    """Run a proxy to *port* on a free port."""
    proxy = CuttingProxy(port, allow, both=both)
    async with serving(proxy.connected) as own_port:
        proxy.url = f"http://127.0.0.1:{own_port}"
        yield proxy
