"""A proxy between workers and a coordinator that knows where WebSocket messages end, and nothing of what is in them.

It passes everything on as it came, except for what it is told to disturb: one message is dropped, held up, sent twice
or swapped with the next one. TCP does none of that by itself; a link that survives it survives every honest network.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from tests.tcp import serving

HEAD_BYTES_MAX = 64 * 1024
PIECE_BYTES = 64 * 1024
BINARY = (0x0, 0x1, 0x2)
"""Opcodes of messages; what is above is a ping, a pong or a close, which are passed on untouched."""

SWAP_WAIT_S = 1.0
"""How long a message waits for one to be swapped with."""


@dataclass
class Trouble:
    """What is to happen to one message of the link."""

    kind: str
    """``drop``, ``delay``, ``double`` or ``swap``."""
    spare: int
    """Messages that pass before it."""
    delay_s: float = 0.0


@dataclass
class LinkProxy:
    """Forwards to wherever *target* says at the moment of connecting; ``(host, port)``."""

    target: Callable[[], tuple[str, int]]
    url: str = ""
    port: int = 0
    done: dict[str, int] = field(default_factory=dict)
    """Disturbed messages by kind of trouble."""
    _troubles: deque[Trouble] = field(default_factory=deque)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def disturb(self, trouble: Trouble) -> None:
        """Have *trouble* with the message after the spared ones, in whichever direction it goes."""
        self._troubles.append(trouble)

    def cut(self) -> None:
        """Reset every connection now."""
        self._count("cut")
        for writer in list(self._writers):
            writer.transport.abort()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        try:
            back_reader, back_writer = await asyncio.open_connection(*self.target())
        except OSError:
            writer.transport.abort()
            return
        both = {writer, back_writer}
        self._writers |= both
        try:
            await self._forward((reader, writer), (back_reader, back_writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # One side went away, as sides do here.
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()

    async def _forward(
        self,
        front: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        back: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        head = await front[0].readuntil(b"\r\n\r\n")
        is_link = b"upgrade: websocket" in head.lower()
        back[1].write(head)
        move = self._messages if is_link else _bytes
        if is_link:
            front[1].write(await back[0].readuntil(b"\r\n\r\n"))
        ways = [asyncio.create_task(move(front[0], back[1])), asyncio.create_task(move(back[0], front[1]))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _messages(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while True:
            message, is_data = await _next_message(source)
            trouble = self._trouble() if is_data else None
            if trouble is None:
                target.write(message)
            elif trouble.kind == "delay":
                await asyncio.sleep(trouble.delay_s)
                target.write(message)
            elif trouble.kind == "double":
                target.write(message + message)
            elif trouble.kind == "swap":
                await self._swap(message, source, target)
            await target.drain()

    async def _swap(self, message: bytes, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        following = asyncio.ensure_future(_next_message(source))
        try:
            # Shielded: a message half read would be lost, and this proxy breaks only what it was told to.
            later, _ = await asyncio.wait_for(asyncio.shield(following), SWAP_WAIT_S)
            target.write(later + message)
        except TimeoutError:
            target.write(message)
            later, _ = await following
            target.write(later)
        finally:
            following.cancel()

    def _trouble(self) -> Trouble | None:
        if not self._troubles:
            return None
        first = self._troubles[0]
        if first.spare > 0:
            first.spare -= 1
            return None
        self._count(first.kind)
        return self._troubles.popleft()

    def _count(self, kind: str) -> None:
        self.done[kind] = self.done.get(kind, 0) + 1


async def _bytes(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(PIECE_BYTES):
        target.write(piece)
        await target.drain()


async def _next_message(source: asyncio.StreamReader) -> tuple[bytes, bool]:
    """Read one whole message (all its frames) or one control frame; say whether it is a message."""
    whole = b""
    while True:
        head = await source.readexactly(2)
        length = head[1] & 0x7F
        if length >= 126:
            extended = await source.readexactly(2 if length == 126 else 8)
            head += extended
            length = int.from_bytes(extended, "big")
        if head[1] & 0x80:
            head += await source.readexactly(4)
        frame = head + await source.readexactly(length)
        if head[0] & 0x0F not in BINARY:
            return whole + frame, False
        whole += frame
        if head[0] & 0x80:
            return whole, True


@contextlib.asynccontextmanager
async def serve_proxy(target: Callable[[], tuple[str, int]]) -> AsyncIterator[LinkProxy]:
    """Run a proxy on a free port."""
    proxy = LinkProxy(target)
    async with serving(proxy.connected, limit=HEAD_BYTES_MAX) as port:
        proxy.port, proxy.url = port, f"http://127.0.0.1:{port}"
        yield proxy
