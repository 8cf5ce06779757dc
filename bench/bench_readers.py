"""Ten thousand idle readers of event streams: memory each costs the coordinator, and what a ping to all of them costs.

Usage: ``PYTHONPATH=src:. python -m bench.bench_readers [readers]`` (needs that many file descriptors)
"""

import asyncio
import functools
import resource
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import uvloop

from bench.bench_completions import COORDINATOR_CPU, child, cpu_s
from bench.bench_lives import Connection

JOBS = 100
"""Readers are spread over so many waiting jobs."""
SETTLE_S = 2.0
IDLE_S = 10.0


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


class Reader(asyncio.Protocol):
    """One connection that reads a stream for ever and counts its bytes."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.seen = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._request)  # type: ignore[attr-defined]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.seen += len(data)


async def measure(readers: int) -> None:
    """Print memory and CPU for *readers* idle streams."""
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as folder, child("coordinator", folder, cpu=COORDINATOR_CPU) as (pid, words):
        port, key = urlsplit(words[0]).port or 80, words[1]
        control = await Connection.open(port)
        host = msgspec.json.encode({"gpu": "idle", "models": ["idle-model"], "price_per_token": 0.000001})
        status, answer = await control.ask("POST", "/hosts/register", key, host)
        assert status == 201, answer
        jobs = []
        for _ in range(JOBS):
            body = b'{"model":"idle-model","input_text":"wait","max_tokens":1}'
            status, answer = await control.ask("POST", "/run/model", key, body)
            assert status == 202, answer
            jobs.append(msgspec.json.decode(answer)["job_id"])
        before = resident_kib(pid)
        started = time.perf_counter()
        made = []
        for number in range(readers):
            head = f"GET /jobs/{jobs[number % JOBS]}/stream HTTP/1.1\r\nhost: b\r\nauthorization: Bearer {key}\r\n\r\n"
            # One address may not have so many connections (connections_per_address_max).
            local = (f"127.0.1.{1 + number // 1_000}", 0)
            reader = functools.partial(Reader, head.encode())
            made.append((await loop.create_connection(reader, "127.0.0.1", port, local_addr=local))[1])
        async with asyncio.timeout(60):
            while not all(reader.seen for reader in made):
                await asyncio.sleep(0.05)
        opened_s = time.perf_counter() - started
        await asyncio.sleep(SETTLE_S)
        each = (resident_kib(pid) - before) / readers
        cpu = cpu_s(pid)
        await asyncio.sleep(IDLE_S)
        print(f"{readers} idle readers, opened in {opened_s:.1f} s: {each:.1f} KiB each (limit 50)")
        print(f"coordinator's CPU while they wait: {(cpu_s(pid) - cpu) / IDLE_S * 100:.1f} % of a core, pings included")


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    if hard < wanted + 100:
        sys.exit(f"{wanted} readers need {wanted + 100} file descriptors; this system allows {hard}")
    uvloop.run(measure(wanted))
