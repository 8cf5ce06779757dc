"""Chat completions through the link to an engine that costs nothing, everything on: auth, hold, durable settlement,
receipt.

Coordinator, worker and load generator are processes of their own; the coordinator has one core, the other two share the
other. CPU is the coordinator's alone (all its threads). Beside it, in the same run, stands a bare Starlette application
on the same server and core that parses the body and answers a constant of the same size.

Usage: ``PYTHONPATH=src:. python -m bench.bench_completions [rounds] [--profile]``
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench.http_load import Result, load, percentile, post
from comptoir.app import open_core, running, tune_interpreter
from comptoir.dispatch.onboard import add_user
from comptoir.settings import Settings
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig, run_worker

TOKENS = 20
"""Tokens of an answer that is not about tokens."""

MESSAGES = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "Explain quantum computing."}]

COORDINATOR_CPU, LOAD_CPU = 0, 1
STAMP = re.compile(rb'"content":"(\d{9,})"')


# -- the other processes -----------------------------------------------------------------------------------------


async def coordinator(folder: str, database: str = "") -> None:
    """Serve until killed, on SQLite unless *database* says otherwise; the first line says port and key."""
    settings = Settings(data=folder, database=database, port=0, requests_per_minute_per_key=100_000_000)
    async with open_core(settings) as core:
        buyer = await add_user(core, username="bench", email="b@example.org", password="correct-horse")
        await core.ledger.deposit(owner_id=buyer.user.id, amount_uusd=10**14)
        tune_interpreter()
        async with running(core) as url:
            print(url, buyer.key, flush=True)
            await asyncio.Event().wait()


async def worker(url: str, folder: str, options: str, slots: str = "256") -> None:
    """Serve the trivial engine until killed."""
    config = WorkerConfig(
        url=url,
        engines=[EngineSpec("bench.trivial_engine:TrivialEngine", msgspec.json.decode(options))],
        slots=int(slots),
        prices={"token_in": 1_000_000, "token_out": 1_000_000},
        measure=False,
        state_dir=folder,
        drain_s=1.0,
    )
    await run_worker(config, stop=asyncio.Event(), on_event=lambda event: None)


async def reference() -> None:
    """Serve the bare Starlette application until killed."""
    answer = {
        "id": "x" * 40,
        "choices": [{"message": {"role": "assistant", "content": " tok" * TOKENS}}],
        "usage": {"a": "b" * 80},
    }

    async def chat(request: Request) -> JSONResponse:
        await request.json()
        return JSONResponse(answer)

    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    config = uvicorn.Config(
        app, port=0, loop="none", http="httptools", lifespan="off", access_log=False, log_config=None
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]} none", flush=True)
    await task


@contextlib.contextmanager
def child(
    *args: str,
    cpu: int,
    said: bool = True,
    module: str = "bench.bench_completions",
    tree: Path | None = None,
    under: Sequence[str] = (),
) -> Iterator[tuple[int, list[str]]]:
    """Run *module* with *args* on one core, from *tree* (None: this one); give its pid and its first line's words.

    Args:
        under: the command of a program that runs it in its own process.
    """
    command = [*under, sys.executable, "-m", module, *args]
    env = None
    if tree is not None:
        env = {**os.environ, "PYTHONPATH": f"{tree / 'src'}{os.pathsep}{tree}", "PYTHONHASHSEED": "0"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE if said else None, text=True, cwd=tree, env=env)
    os.sched_setaffinity(process.pid, {cpu})
    try:
        yield process.pid, process.stdout.readline().split() if process.stdout else []
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of all threads of a process."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


# -- the measurements --------------------------------------------------------------------------------------------


class Server:
    """A process under load."""

    def __init__(self, pid: int, url: str, key: str) -> None:
        self.pid = pid
        self.port = urlsplit(url).port or 80
        self.key = key

    def request(self, *, tokens: int, stream: bool) -> bytes:
        body = {"model": "trivial", "max_tokens": tokens, "stream": stream, "temperature": 0.7, "messages": MESSAGES}
        return post("/v1/chat/completions", msgspec.json.encode(body), key=self.key)

    async def run(
        self,
        *,
        clients: int,
        requests: int,
        tokens: int = TOKENS,
        stream: bool = False,
        gap_s: float = 0.0,
        on_data: object = None,
    ) -> tuple[Result, float]:
        """Return what the clients saw, and the server's CPU seconds."""
        before = cpu_s(self.pid)
        request = self.request(tokens=tokens, stream=stream)
        seen = on_data if callable(on_data) else lambda data: None
        result = await load(self.port, request, clients=clients, requests=requests, gap_s=gap_s, on_data=seen)
        if result.failures:
            raise SystemExit(result.failures[0].decode())
        return result, cpu_s(self.pid) - before


async def whole(ours: Server, bare: Server) -> None:
    """Measure answers that are not streamed."""
    print(
        f"{'in flight':>9} {'req/s':>8} {'CPU us/req':>11} {'per core':>9} {'p50 ms':>7} {'p99 ms':>7}   bare Starlette: /s, CPU us"
    )
    for clients, requests in ((1, 1000), (16, 4000), (64, 8000)):
        mine, cpu = await ours.run(clients=clients, requests=requests)
        theirs, bare_cpu = await bare.run(clients=clients, requests=requests)
        each, bare_each = cpu / requests, bare_cpu / requests
        print(
            f"{clients:>9} {requests / mine.wall_s:>8,.0f} {each * 1e6:>11.0f} {1 / each:>9,.0f} "
            f"{percentile(mine.latencies_s, 0.5) * 1e3:>7.2f} {percentile(mine.latencies_s, 0.99) * 1e3:>7.2f}   "
            f"{requests / theirs.wall_s:,.0f}, {bare_each * 1e6:.0f}, {each / bare_each:.1f}x CPU"
        )
    for name, stream in (("answer", False), ("first token", True)):
        mine, _ = await ours.run(clients=1, requests=200, gap_s=0.02, stream=stream, tokens=1)
        theirs, _ = await bare.run(clients=1, requests=200, gap_s=0.02)
        p50, p99 = (percentile(mine.first_byte_s, share) * 1e3 for share in (0.5, 0.99))
        base = percentile(theirs.first_byte_s, 0.5) * 1e3
        print(
            f"low load, {name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms (the engine itself answers at once; Starlette p50 {base:.2f})"
        )


async def paced(ours: Server, streams: int = 64, per_s: int = 50, seconds: int = 4) -> None:
    """Measure each token's way from the engine to the client."""
    delays: list[float] = []

    def on_data(data: bytes) -> None:
        now = time.monotonic_ns()
        delays.extend((now - int(stamp)) / 1e6 for stamp in STAMP.findall(data))

    tokens = per_s * seconds
    _, cpu = await ours.run(clients=streams, requests=streams, tokens=tokens, stream=True, on_data=on_data)
    told = len(delays)
    print(
        f"{streams} streams x {per_s} tokens/s: {told:,} tokens, delay p50 {percentile(delays, 0.5):.2f} ms, "
        f"p99 {percentile(delays, 0.99):.2f} ms, CPU {cpu / told * 1e6:.1f} us/token"
    )


async def flat_out(ours: Server, streams: int, tokens: int = 5000) -> None:
    """Measure how fast tokens go through."""
    counted = 0

    def on_data(data: bytes) -> None:
        nonlocal counted
        counted += data.count(b'"content":" tok"')

    result, cpu = await ours.run(clients=streams, requests=streams, tokens=tokens, stream=True, on_data=on_data)
    print(
        f"{streams} streams flat out: {counted / result.wall_s:,.0f} tokens/s, {counted / cpu:,.0f} per core of the coordinator, "
        f"CPU {cpu / counted * 1e6:.1f} us/token ({counted:,} of {streams * tokens:,} seen whole)"
    )


@contextlib.contextmanager
def trading_post(**options: object) -> Iterator[Server]:
    """Run coordinator and worker."""
    spec = msgspec.json.encode(options).decode()
    with (
        tempfile.TemporaryDirectory(prefix="comptoir-bench-") as folder,
        child("coordinator", folder + "/data", cpu=COORDINATOR_CPU) as (pid, (url, key)),
        child("worker", url, folder + "/worker", spec, cpu=LOAD_CPU, said=False),
    ):
        yield Server(pid, url, key)


async def linked(ours: Server) -> None:
    """Wait until the worker's model is there."""
    for _ in range(200):
        probe = await load(ours.port, ours.request(tokens=1, stream=False), clients=1, requests=1)
        if not probe.failures:
            return
        await asyncio.sleep(0.05)
    raise SystemExit(probe.failures[0].decode())


async def one_round() -> None:
    """Measure everything once."""
    with trading_post() as ours, child("reference", cpu=COORDINATOR_CPU) as (pid, (url, key)):
        await linked(ours)
        await ours.run(clients=16, requests=500)
        await whole(ours, Server(pid, url, key))
        for streams in (1, 64):
            await flat_out(ours, streams)
    with trading_post(per_s=50, stamp=True) as ours:
        await linked(ours)
        await paced(ours)


def main(args: list[str]) -> None:
    roles = {"coordinator": coordinator, "worker": worker, "reference": reference}
    if args and args[0] in roles:
        uvloop.run(roles[args[0]](*args[1:]))  # type: ignore[operator]
        return
    os.sched_setaffinity(0, {LOAD_CPU})
    for turn in range(int(args[0]) if args else 1):
        print(f"-- round {turn + 1}", flush=True)
        uvloop.run(one_round())


if __name__ == "__main__":
    main(sys.argv[1:])
