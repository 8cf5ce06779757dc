"""Five thousand hostile connections of each kind in turn: the coordinator's memory, and how long another caller waits
for /health.

Heads without end, bodies and half-sent link messages that trickle, readers of 28 MB answers that never read, and
submits of 15 MB that wait for a host, from sixteen addresses of loopback. Coordinator, attackers and caller are
processes of their own.

Usage: ``PYTHONPATH=src:. python -m bench.bench_hostile [connections] [seconds of each] [kinds]``
"""

import asyncio
import os
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request as UrlRequest
from urllib.request import urlopen

import msgspec
import uvloop

from bench.bench_completions import child
from bench.bench_lives import Connection
from bench.http_load import percentile
from comptoir.app import allow_files, open_core, running, tune_interpreter
from comptoir.dispatch.onboard import add_host, add_user
from comptoir.hosts import LINK, NewHost
from comptoir.link import ModelOffer
from comptoir.settings import Settings

MODULE = "bench.bench_hostile"
CONNECTIONS = 5_000
SECONDS = 12.0
ADDRESSES = 16
BUYERS = 4
ANSWERS = 4
RSS_MIB_MAX = 400
"""What the coordinator may use at most, whatever comes."""
HEALTH_P99_MS_MAX = 50

KIB, MIB = 1 << 10, 1 << 20
SAMPLE_S = 0.01
TRICKLE_S = 1.0
AGAIN_S = 2.0
"""When a connection that was cut is opened again."""
OPENING = 32
"""Connections opened at once: faster than this the attackers' core is what is measured."""


async def coordinator(folder: str) -> None:
    """Serve with the settings as they ship until killed; the first line says where, and the keys."""
    settings = Settings(data=folder, port=0, requests_per_minute_per_ip=10_000_000, log_level="error")
    async with open_core(settings) as core:
        keys = []
        for number in range(BUYERS):
            made = await add_user(core, username=f"buyer{number}", email=None, password=None, credit_uusd=10**12)
            keys.append(made.key)
        linked = NewHost(gpu="x", models=(ModelOffer("nobody-serves-it", ["chat"]),), slots=1, transport=LINK)
        host = await add_host(core, linked)
        tune_interpreter()
        allow_files()
        async with running(core) as url:
            print(url, host.key, *keys, flush=True)
            await asyncio.Event().wait()


# -- what is sent --------------------------------------------------------------------------------------------------


def _post(path: str, key: str, size: int) -> bytes:
    auth = f"authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{auth}"
    return f"{head}content-length: {size}\r\n\r\n".encode()


def _get(path: str, key: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\r\n".encode()


def endless_head(number: int, words: list[str]) -> tuple[bytes, bytes]:
    """60 KiB of a head, and then some of it for ever."""
    return b"GET /health HTTP/1.1\r\nhost: localhost\r\na: " + b"x" * 60 * KIB, b"x" * KIB


def slow_body(number: int, words: list[str]) -> tuple[bytes, bytes]:
    """100 KiB of a body without a key, and then a byte a second."""
    return _post("/users", "", 200 * KIB) + b'{"username":"' + b"x" * 100 * KIB, b"x"


def half_link_message(number: int, words: list[str]) -> tuple[bytes, bytes]:
    """A link, 64 KiB of a message of 10 MiB, and then a byte a second."""
    head = (
        "GET /comptoir/link HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        f"sec-websocket-version: 13\r\nsec-websocket-key: {'A' * 22}==\r\nauthorization: Bearer {words[1]}\r\n\r\n"
    )
    return head.encode(), b"x"


HALF_MESSAGE = struct.pack("!BBQ", 0x82, 0xFF, 10 * MIB) + bytes(4 + 64 * KIB)
"""Sent when the link is accepted: what comes before belongs to nobody."""


def never_read(number: int, words: list[str]) -> tuple[bytes, bytes]:
    """The stream of a large answer, or all of it at once; not a byte of it is read."""
    key, job = words[2], words[-1 - number % ANSWERS]
    return _get(f"/jobs/{job}" + ("/stream" if number % 2 else ""), key), b""


def waiting_job(number: int, words: list[str]) -> tuple[bytes, bytes]:
    """A job of 15 MB for a host that never comes."""
    body = b'{"model":"nobody-serves-it","max_tokens":1,"input_text":"' + b"x" * 15_000_000 + b'"}'
    return _post("/run/model", words[2 + number % BUYERS], len(body)) + body, b""


KINDS: dict[str, Callable[[int, list[str]], tuple[bytes, bytes]]] = {
    one.__name__: one for one in (endless_head, slow_body, half_link_message, never_read, waiting_job)
}


class Attacker(asyncio.Protocol):
    """One connection: sends, reads nothing (or the acceptance of a link), and sends a little more each second."""

    def __init__(self, first: bytes, more: bytes, once_accepted: bytes) -> None:
        self._first = first
        self._more = more
        self._once_accepted = once_accepted
        self.open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self._first)
        if not self._once_accepted:
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.transport.pause_reading()
        if data.startswith(b"HTTP/1.1 101 "):
            self.transport.write(self._once_accepted)
        self._once_accepted = b""

    def trickle(self) -> None:
        if self._more and self.open and not self._once_accepted and self.transport.get_write_buffer_size() < MIB:
            self.transport.write(self._more)

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False


async def attack(kind: str, count: int, words: list[str]) -> None:
    """Keep *count* connections of *kind* open until killed."""
    os.nice(10)
    loop, port = asyncio.get_running_loop(), urlsplit(words[0]).port
    made: dict[int, Attacker] = {}
    opening = asyncio.Semaphore(OPENING)
    small = kind != "waiting_job"
    once_accepted = HALF_MESSAGE if kind == half_link_message.__name__ else b""
    ready = {number: KINDS[kind](number, words) for number in range(BUYERS * ANSWERS * 2)}

    async def open_one(number: int) -> None:
        first, more = ready[number % len(ready)]
        local = (f"127.0.1.{1 + number % ADDRESSES}", 0)
        async with opening:
            try:
                async with asyncio.timeout(5):
                    protocol = Attacker(first, more, once_accepted)
                    await loop.create_connection(lambda: protocol, "127.0.0.1", port, local_addr=local)
                    made[number] = protocol
            except OSError:
                return

    while True:
        gone = [number for number in range(count) if number not in made or not made[number].open]
        for start in range(0, len(gone), OPENING):
            await asyncio.gather(*[open_one(number) for number in gone[start : start + OPENING]])
            await asyncio.sleep(0 if small else 0.05)
        for one in list(made.values()):
            one.trickle()
        await asyncio.sleep(TRICKLE_S if len(gone) < count else AGAIN_S)


async def probe(port: int, seconds: float) -> None:
    """Ask for /health, from an address of its own; print median, 99th percentile and how many there were."""
    took: list[float] = []
    connection = await Connection.open(port)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        await connection.ask("GET", "/health", "")  # 503 where the database takes longer than half a second.
        took.append(time.perf_counter() - started)
        await asyncio.sleep(SAMPLE_S)
    print(percentile(took, 0.5) * 1000, percentile(took, 0.99) * 1000, len(took), flush=True)


# -- the measurement -----------------------------------------------------------------------------------------------


async def large_answers(words: list[str]) -> list[str]:
    """Have a polling host answer some jobs with 28 MB each; return their ids."""
    control = await Connection.open(urlsplit(words[0]).port or 80)
    offer = {"gpu": "x", "models": ["large"], "price_per_token": 0, "slots": 1}
    status, answer = await control.ask("POST", "/hosts/register", words[2], msgspec.json.encode(offer))
    assert status == 201, answer
    host = msgspec.json.decode(answer)
    jobs = []
    for _ in range(ANSWERS):
        body = b'{"model":"large","input_text":"x","max_tokens":1000}'
        status, answer = await control.ask("POST", "/run/model", words[2], body)
        assert status == 202, answer
        job = msgspec.json.decode(answer)["job_id"]
        jobs.append(job)
        poll = msgspec.json.encode({"host_id": host["host_id"], "wait_s": 5})
        status, answer = await control.ask("POST", "/hosts/next-job", host["api_key"], poll)
        assert status == 200, answer
        tokens = ["x" * 50_000] * 140
        for _ in range(4):
            chunk = msgspec.json.encode({"host_id": host["host_id"], "tokens": tokens})
            status, answer = await control.ask("POST", f"/hosts/jobs/{job}/chunk", host["api_key"], chunk)
            assert status == 200, answer
        end = msgspec.json.encode({"host_id": host["host_id"]})
        status, answer = await control.ask("POST", f"/hosts/complete-job/{job}", host["api_key"], end)
        assert status == 200, answer
    control.close()
    return jobs


def status_mib(pid: int, name: str) -> float:
    """Return a size of a process as the kernel has it (VmRSS, VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


def refused(port: int) -> str:
    """Return how many connections and requests were refused for which bound, as /metrics has it."""
    asking = UrlRequest(f"http://127.0.0.1:{port}/metrics", headers={"accept": "text/plain"})
    with urlopen(asking, timeout=30) as answer:
        text = answer.read().decode()
    found = re.findall(r'^comptoir_bounded_total\{setting="(\w+)"\} ([\d.]+)', text, re.MULTILINE)
    return ", ".join(f"{setting} {float(count):,.0f}" for setting, count in found if float(count))


def asked(port: int, seconds: float) -> tuple[float, float, int]:
    """Run a caller of its own process beside whatever goes on."""
    command = [sys.executable, "-m", MODULE, "probe", str(port), str(seconds)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(said[0]), float(said[1]), int(said[2])


def measure(count: int, seconds: float, kinds: list[str]) -> bool:
    """Print a line for each kind; tell whether the bounds held."""
    held = True
    load = os.getloadavg()[0]
    print(f"{count:,} connections of each kind for {seconds:g} s; load of the machine before: {load:.1f}")
    print(f"RSS at most {RSS_MIB_MAX} MiB, p99 at most {HEALTH_P99_MS_MAX} ms")
    print(f"{'':18} {'RSS, MiB':>12} {'/health p50':>12} {'p99, ms':>8} {'asked':>6}  refused")
    for kind in kinds:
        with (
            tempfile.TemporaryDirectory() as folder,
            child("coordinator", folder, cpu=0, module=MODULE) as (pid, words),
        ):
            port = urlsplit(words[0]).port or 80
            if kind == "never_read":
                words += asyncio.run(large_answers(words))
            at_rest = status_mib(pid, "VmRSS")
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # The peak is counted from here.
            if kind == "nobody":
                p50, p99, asks = asked(port, seconds)
            else:
                with child("attack", kind, str(count), *words, cpu=1, said=False, module=MODULE):
                    time.sleep(seconds / 3)
                    p50, p99, asks = asked(port, seconds * 2 / 3)
            peak = status_mib(pid, "VmHWM")
            held = held and peak < RSS_MIB_MAX and (p99 < HEALTH_P99_MS_MAX)
            rss = f"{at_rest:.0f} -> {peak:.0f}"
            print(f"{kind:18} {rss:>12} {p50:12.1f} {p99:8.1f} {asks:6}  {refused(port) or '-'}", flush=True)
    return held


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    match sys.argv[1:]:
        case ["coordinator", where]:
            uvloop.run(coordinator(where))
        case ["attack", kind, count, *words]:
            uvloop.run(attack(kind, int(count), words))
        case ["probe", port, seconds]:
            uvloop.run(probe(int(port), float(seconds)))
        case asked_for:
            named = [one for one in asked_for if one in KINDS]
            numbers = [float(one) for one in asked_for if one not in KINDS]
            wanted = numbers + [CONNECTIONS, SECONDS][len(numbers) :]
            sys.exit(not measure(int(wanted[0]), wanted[1], ["nobody", *(named or KINDS)]))
