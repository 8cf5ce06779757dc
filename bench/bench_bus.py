"""The bus over Redis between two processes: latency at 3,200 messages a second, most messages a second, CPU of each
side.

Beside it, in the same run and against the same server, redis-py: one XADD a message, pipelined over what waits, and a
blocking XREAD. Sender, receiver and server share the machine's cores.

Usage: ``PYTHONPATH=src:. python -m bench.bench_bus [seconds]``
"""

import asyncio
import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import redis.asyncio
import uvloop
from tests.redis_server import RedisServer

from comptoir.kit.bus import open_bus

RATE = 3_200
"""Messages a second: 64 answers of 50 tokens a second, each followed at another coordinator."""

WINDOW = 4_000
"""Messages under way when as many as possible are sent."""

ACK_EVERY = 500
SIZES = (64, 2_048)
SENDER, RECEIVER = b"s" * 16, b"r" * 16


class Pipe(Protocol):
    """One end of what is measured."""

    def send(self, data: bytes) -> None: ...


class Ours:
    """The bus of this repository."""

    def __init__(self, url: str, me: bytes, other: bytes, on_message: Callable[[bytes], None]) -> None:
        self.bus = open_bus(url, me, post="bench")
        self._other = other
        self._on_message = on_message

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        await self.bus.start(
            on_message=lambda _, data: self._on_message(data), on_change=lambda up: None, on_gap=self._gap
        )
        yield
        await self.bus.close()

    def _gap(self, sender: bytes) -> None:
        raise AssertionError("the bus lost messages; the figures mean nothing")

    def send(self, data: bytes) -> None:
        self.bus.send(self._other, data)


class Bare:
    """redis-py: what waits goes as one pipeline, one XADD a message; the reader blocks in XREAD."""

    def __init__(self, url: str, me: bytes, other: bytes, on_message: Callable[[bytes], None]) -> None:
        self._url = url
        self._inbox, self._outbox = f"bench:{me.decode()}", f"bench:{other.decode()}"
        self._on_message = on_message
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._stopped = False

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self._client = redis.asyncio.Redis.from_url(self._url)
        tasks = [asyncio.create_task(self._send_all()), asyncio.create_task(self._read_all())]
        yield
        # Not cancelled: redis-py 8 now and then swallows that inside a blocking read.
        self._stopped = True
        self._news.set()
        await asyncio.gather(*tasks)
        await self._client.aclose()

    def send(self, data: bytes) -> None:
        self._waiting.append(data)
        self._news.set()

    async def _send_all(self) -> None:
        while not self._stopped:
            await self._news.wait()
            self._news.clear()
            pipeline = self._client.pipeline(transaction=False)
            while self._waiting:
                pipeline.xadd(self._outbox, {"e": self._waiting.popleft()}, maxlen=10_000, approximate=True)
            await pipeline.execute()

    async def _read_all(self) -> None:
        position: bytes = b"0"
        while not self._stopped:
            found = await self._client.xread({self._inbox: position}, count=256, block=200)
            for _, entries in found or ():
                position = entries[-1][0]
                for _, fields in entries:
                    self._on_message(fields[b"e"])


KINDS = {"comptoir": Ours, "redis-py": Bare}


async def receive(kind: str, url: str, line: "Connection[str, object]") -> None:
    """Note when each message came, acknowledge now and then, and report when asked."""
    came: list[tuple[int, int]] = []

    def on_message(data: bytes) -> None:
        came.append((int.from_bytes(data[:8], "big"), time.monotonic_ns()))
        if len(came) % ACK_EVERY == 0:
            end.send(b"%d" % len(came))

    end = KINDS[kind](url, RECEIVER, SENDER, on_message)
    async with end.open():
        line.send("ready")
        while True:
            while not line.poll():
                await asyncio.sleep(0.005)
            word = line.recv()
            if word == "end":
                return
            if word == "begin":
                came.clear()
                cpu = time.process_time()
                line.send("begun")
            else:
                while len(came) < int(word):
                    await asyncio.sleep(0.005)
                line.send((time.process_time() - cpu, [after - before for before, after in came]))


def receiver(kind: str, url: str, line: "Connection[str, object]") -> None:
    uvloop.run(receive(kind, url, line))


@dataclass
class Run:
    """What one run measured, per message where it says us."""

    messages: int
    wall_s: float
    p50_us: float
    p99_us: float
    sender_us: float
    receiver_us: float
    server_us: float


def server_cpu_s(server: RedisServer) -> float:
    """Return the server's CPU seconds so far."""
    words = server.ask("INFO", "cpu").decode().split()
    found = dict(word.split(":") for word in words if ":" in word)
    return float(found["used_cpu_sys"]) + float(found["used_cpu_user"])


async def paced(pipe: Pipe, size: int, seconds: float) -> int:
    """Send `RATE` messages a second, each at its own moment; return how many."""
    total = int(RATE * seconds)
    filling = bytes(size - 8)
    began = time.monotonic()
    for number in range(total):
        early = began + number / RATE - time.monotonic()
        if early > 0:
            await asyncio.sleep(early)
        pipe.send(time.monotonic_ns().to_bytes(8, "big") + filling)
    return total


async def measure(kind: str, server: RedisServer, size: int, seconds: float, *, most: bool) -> Run:
    """Run one sender here and one receiver in a process of its own."""
    server.ask("FLUSHALL")
    line, far = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=receiver, args=(kind, server.url, far), daemon=True)
    child.start()
    seen, news = [0], asyncio.Event()

    def on_message(data: bytes) -> None:
        seen[0] = int(data)
        news.set()

    end = KINDS[kind](server.url, SENDER, RECEIVER, on_message)
    async with end.open():
        await asyncio.to_thread(line.recv)
        line.send("begin")
        await asyncio.to_thread(line.recv)
        server_cpu, cpu, began = server_cpu_s(server), time.process_time(), time.monotonic()
        if most:
            total, filling = 0, bytes(size - 8)
            while time.monotonic() - began < seconds:
                for _ in range(50):
                    end.send(time.monotonic_ns().to_bytes(8, "big") + filling)
                total += 50
                await asyncio.sleep(0)
                while total - seen[0] > WINDOW:
                    news.clear()
                    await news.wait()
        else:
            total = await paced(end, size, seconds)
        cpu = time.process_time() - cpu
        line.send(str(total))
        receiver_cpu, waits = await asyncio.to_thread(line.recv)
        wall = time.monotonic() - began
        server_cpu = server_cpu_s(server) - server_cpu
        line.send("end")
    await asyncio.to_thread(child.join)
    cuts = statistics.quantiles(waits, n=100)
    per = 1e6 / total
    return Run(total, wall, cuts[49] / 1000, cuts[98] / 1000, cpu * per, receiver_cpu * per, server_cpu * per)


async def main(seconds: float) -> None:
    """Measure and print."""
    print(f"{os.cpu_count()} cores; CPU in us a message")
    print(f"{'':<34}{'messages/s':>11}{'p50 us':>9}{'p99 us':>9}{'sender':>9}{'receiver':>10}{'server':>8}")
    with tempfile.TemporaryDirectory(prefix="comptoir-redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            for most in (False, True):
                for size in SIZES:
                    runs = {}
                    for kind in KINDS:
                        run = runs[kind] = await measure(kind, server, size, seconds, most=most)
                        name = f"{kind}, {size} bytes, {'as many as go' if most else 'paced'}"
                        print(
                            f"{name:<34}{run.messages / run.wall_s:>11,.0f}{run.p50_us:>9,.0f}{run.p99_us:>9,.0f}"
                            f"{run.sender_us:>9.1f}{run.receiver_us:>10.1f}{run.server_us:>8.1f}",
                            flush=True,
                        )
                    ours, bare = runs["comptoir"], runs["redis-py"]
                    both = (bare.sender_us + bare.receiver_us) / (ours.sender_us + ours.receiver_us)
                    print(
                        f"  redis-py / comptoir: CPU of both ends {both:.1f} x, p50 {bare.p50_us / ours.p50_us:.1f} x, "
                        f"messages/s 1/{(ours.messages / ours.wall_s) / (bare.messages / bare.wall_s):.1f}"
                    )
        finally:
            server.kill()


if __name__ == "__main__":
    uvloop.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0))
