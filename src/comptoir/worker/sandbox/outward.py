"""The only way out of a sandbox: a proxy of the worker's, which reaches public addresses and nothing else.

The program's network has no interface but its own loopback. What listens there, at 127.0.0.1:3128, is a socket that was
made inside and handed to the worker, so that the worker, outside, answers. It speaks HTTP's CONNECT, which every
program takes from ``https_proxy``; names are resolved and addresses judged out here, by the guard that also judges the
URLs of strangers.
"""

import asyncio
import contextlib
import ipaddress
import logging
import socket

from comptoir.kit.errors import InvalidField
from comptoir.kit.urlguard import AddressRefused, UrlGuard
from comptoir.worker.sandbox.launch import PROXY_PORT

ENVIRONMENT = dict.fromkeys(("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), f"http://127.0.0.1:{PROXY_PORT}")
"""What tells a program of the way out."""

CONNECTIONS_MAX = 64
HEAD_BYTES_MAX = 8 * 1024
HEAD_S = 10.0
CONNECT_S = 10.0
IDLE_S = 60.0
"""How long a connection may carry nothing."""
_CHUNK_BYTES = 64 * 1024

_log = logging.getLogger(__name__)


class Outward:
    """Answers the door of one run."""

    def __init__(self, guard: UrlGuard, *, bytes_max: int) -> None:
        self._guard = guard
        self._left_bytes = bytes_max
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def serve(self, door: socket.socket) -> None:
        """Answer at *door*, which this closes in the end."""
        self._server = await asyncio.start_server(self._answer, sock=door, limit=HEAD_BYTES_MAX)

    async def close(self) -> None:
        """Close the door and what went through it; idempotent."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            status = await self._carry(reader, writer) if len(self._open) <= CONNECTIONS_MAX else "503 Too Many"
            if status:
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
        except (OSError, TimeoutError):
            # Either side broke off; the program sees its connection end.
            _log.debug("a connection out of a sandbox ended", exc_info=True)
        finally:
            self._open.discard(task)
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Carry one connection; return the status of a refusal, empty after one that was carried."""
        try:
            async with asyncio.timeout(HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return "400 Bad Request"
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or words[0] != "CONNECT":
            return "405 Only CONNECT"
        host, _, port = words[1].rpartition(":")
        try:
            there = await self._reach(host, port)
        except InvalidField:
            return "403 Not A Public Address"
        except AddressRefused:
            return "403 Not A Public Address"
        except (OSError, TimeoutError):
            return "502 Not Reached"
        far_reader, far_writer = await asyncio.open_connection(sock=there)
        copies: list[asyncio.Task[None]] = []
        try:
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            await writer.drain()
            copies = [asyncio.create_task(self._copy(*each)) for each in ((reader, far_writer), (far_reader, writer))]
            await asyncio.gather(*copies)
        finally:
            for each in copies:
                each.cancel()
            far_writer.close()
        return ""

    async def _reach(self, host: str, port: str) -> socket.socket:
        """Connect to the first public address that *host* has.

        Raises:
            InvalidField, AddressRefused: it is, or leads, inside. OSError, TimeoutError: it can't be reached.
        """
        self._guard.check("address", f"https://{host}:{port}/")
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_S):
            found = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
            allowed = [each for each in found if self._guard.allows(ipaddress.ip_address(each[4][0]))]
            if not allowed:
                raise AddressRefused("the name leads into a private network")
            made = self._guard.socket(allowed[0])
            try:
                await loop.sock_connect(made, allowed[0][4])
            except BaseException:
                made.close()
                raise
        return made

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction to its end.

        Raises:
            TimeoutError: nothing came for `IDLE_S`. OSError: either side broke off, or the run's bytes are used up.
        """
        while True:
            async with asyncio.timeout(IDLE_S):
                piece = await reader.read(_CHUNK_BYTES)
            if not piece:
                break
            self._left_bytes -= len(piece)
            if self._left_bytes < 0:
                raise OSError("the run has sent and received all it may")
            writer.write(piece)
            await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()
