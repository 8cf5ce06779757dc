"""A load generator that costs little: one asyncio protocol a connection, keep-alive, closed loop, answers told by their
bytes."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

END_OF_HEAD = b"\r\n\r\n"
LENGTH = b"content-length: "
LAST_CHUNK = b"0\r\n\r\n"


@dataclass
class Result:
    """What one run saw; times in seconds."""

    requests: int = 0
    wall_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    first_byte_s: list[float] = field(default_factory=list)
    """From sending a request to the first byte of its body."""
    failures: list[bytes] = field(default_factory=list)


class Client(asyncio.Protocol):
    """One connection that sends the next request when the last is answered."""

    def __init__(
        self, request: bytes, take: Callable[[], bool], result: Result, on_data: Callable[[bytes], None]
    ) -> None:
        self._request = request
        self._take = take
        self._result = result
        self._on_data = on_data
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._sent = 0.0
        self._in_body = False
        self.done = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport: Any = transport
        self._next()

    def _next(self) -> None:
        if not self._take():
            self._transport.close()
            return
        self._buffer = b""
        self._in_body = False
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._buffer += data
            end = self._buffer.find(END_OF_HEAD)
            if end < 0 or len(self._buffer) == end + 4:
                return
            self._in_body = True
            self._result.first_byte_s.append(time.perf_counter() - self._sent)
            head, body = self._buffer[:end].lower(), self._buffer[end + 4 :]
            at = head.find(LENGTH)
            self._left = int(head[at + len(LENGTH) :].split(b"\r", 1)[0]) if at >= 0 else -1
            if b" 200 " not in head[:16]:
                self._result.failures.append(self._buffer)
            self._tail = b""
            self._body(body)
        else:
            self._body(data)

    def _body(self, data: bytes) -> None:
        self._on_data(data)
        if self._left >= 0:
            self._left -= len(data)
            complete = self._left <= 0
        else:
            self._tail = (self._tail + data)[-len(LAST_CHUNK) :]
            complete = self._tail == LAST_CHUNK
        if complete:
            self._result.latencies_s.append(time.perf_counter() - self._sent)
            self._result.requests += 1
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def post(path: str, body: bytes, *, key: str) -> bytes:
    """Spell one request."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    )
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


async def load(
    port: int,
    request: bytes,
    *,
    clients: int,
    requests: int,
    on_data: Callable[[bytes], None] = lambda data: None,
    gap_s: float = 0.0,
) -> Result:
    """Send *requests* over *clients* connections; with *gap_s* one after the other with pauses between."""
    result = Result()
    left = requests
    loop = asyncio.get_running_loop()

    def take() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    started = time.perf_counter()
    if gap_s:
        for _ in range(requests):
            once = iter((True, False))
            _, client = await loop.create_connection(
                lambda once=once: Client(request, lambda: next(once), result, on_data),
                "127.0.0.1",
                port,  # type: ignore[misc]
            )
            await client.done
            await asyncio.sleep(gap_s)
    else:
        made = [
            await loop.create_connection(lambda: Client(request, take, result, on_data), "127.0.0.1", port)
            for _ in range(clients)
        ]
        await asyncio.gather(*(client.done for _, client in made))
    result.wall_s = time.perf_counter() - started
    return result


def percentile(values: list[float], share: float) -> float:
    """Return the value that *share* (0..1) of *values* do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
