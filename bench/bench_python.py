"""Python programs, bought at a trading post and run by a worker: how long until the first line, and what many cost.

First line: from the order (POST) to the first line in the stream of frames, with a package from a warm environment,
    beside bubblewrap alone with the same interpreter, package and program; alternating in one run.
Parallel: small jobs, all ordered at once, on two slots: jobs a second, and the memory of worker and coordinator before,
    at most, and after.

Usage: ``PYTHONPATH=src:. python -m bench.bench_python [ROUNDS] [JOBS]``
"""

import asyncio
import contextlib
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from tests.worker.engines.python.wheels import simple, wheel

from comptoir.app import open_core, running
from comptoir.dispatch.onboard import add_user
from comptoir.settings import Settings
from comptoir.worker.engines.python.host_python import host_python
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig, run_worker
from comptoir.worker.sandbox.layers import bubblewrap_found

ROUNDS, JOBS, SLOTS = 30, 200, 2
PROGRAM = "import small\nprint(small.WORD)"
MIB = 1 << 20
LOOK_S = 0.05
LINKS = [
    word for name in ("bin", "lib", "lib64") if os.path.islink(f"/{name}")
    for word in ("--symlink", f"usr/{name}", f"/{name}")
]  # fmt: skip


async def coordinator(folder: str) -> None:
    """Serve until killed; the first line says address and key."""
    settings = Settings(data=folder, port=0, requests_per_minute_per_key=100_000_000, jobs_per_buyer_max=JOBS * 2)
    async with open_core(settings) as core:
        buyer = await add_user(core, username="bench", email="b@example.org", password="correct-horse")
        await core.ledger.deposit(owner_id=buyer.user.id, amount_uusd=10**12)
        async with running(core) as url:
            print(url, buyer.key, flush=True)
            await asyncio.Event().wait()


async def worker(url: str, folder: str) -> None:
    """Serve Python until killed."""
    config = WorkerConfig(
        url=url, engines=[EngineSpec("python", {"cores": 1, "memory_mib": 1024})], slots=SLOTS,
        prices={"wall_ms": 100_000, "cpu_ms": 100_000}, measure=False, state_dir=folder, drain_s=1.0,
    )  # fmt: skip
    print("on", flush=True)
    await run_worker(config, stop=asyncio.Event(), on_event=lambda event: None)


@contextlib.asynccontextmanager
async def child(*words: str) -> AsyncIterator[tuple[int, list[str]]]:
    """Run a part of this module in a process of its own; give its pid and the words of its first line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.bench_python", *words, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield process.pid, (await process.stdout.readline()).decode().split()
    finally:
        process.kill()
        await process.wait()


def rss_mib(pid: int) -> float:
    """Return the resident memory of one process."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


class Buyer:
    """A client of the trading post."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session, self._url = session, url
        self._headers = {"authorization": f"Bearer {key}"}

    async def order(self, **body: Any) -> str:
        """Buy a program's run; return the job."""
        order = {"kind": "python", "model": "python", "body": {"limits": {"wall_s": 30}} | body}
        async with self._session.post(f"{self._url}/house/jobs", json=order, headers=self._headers) as answer:
            told = await answer.json()
            assert answer.status == 201, told
            return str(told["id"])

    async def follow(self, job: str, *, to_first_line: bool = False) -> str:
        """Return what it printed; with *to_first_line* no more than that."""
        text = ""
        async with self._session.get(f"{self._url}/house/jobs/{job}/frames", headers=self._headers) as answer:
            async for line in answer.content:
                if line.startswith(b"data: "):
                    said = json.loads(line[6:])
                    assert said.get("state", "completed") == "completed", said
                    text += said.get("text", "")
                    if "state" in said or (to_first_line and "\n" in text):
                        return text
        raise AssertionError("the stream ended without its end")

    async def until_offered(self) -> None:
        """Wait until a host is there."""
        while True:
            async with self._session.get(f"{self._url}/house/models", headers=self._headers) as answer:
                if "python" in [each["name"] for each in (await answer.json())["others"]]:
                    return
            await asyncio.sleep(0.1)


async def alone(packages: Path) -> float:
    """Return the seconds to the first line in bubblewrap alone."""
    python = host_python()
    shown = [word for each in python.bounds for word in ("--ro-bind", each.source, each.target)]
    lib = python.env(sandboxed=True).get("LD_LIBRARY_PATH", "")
    words = [
        "--ro-bind",
        "/usr",
        "/usr",
        *LINKS,
        *shown,
        "--ro-bind",
        str(packages),
        "/p",
        "--unshare-all",
        "--proc",
        "/proc",
    ]
    words += ["--dev", "/dev", "--die-with-parent", "--clearenv", "--setenv", "LD_LIBRARY_PATH", lib]
    words += [
        python.program(sandboxed=True),
        "-I",
        "-S",
        "-u",
        "-B",
        "-c",
        f"import sys; sys.path.append('/p')\n{PROGRAM}",
    ]
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(bubblewrap_found(), *words, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    line = await process.stdout.readline()
    took = time.perf_counter() - began
    await process.wait()
    assert line == b"word\n", line
    return took


async def first_lines(buyer: Buyer, packages: Path, rounds: int) -> None:
    """Print how long it takes to the first line, both ways."""
    await buyer.follow(await buyer.order(code=PROGRAM, requirements=["small"]))
    bare, bought = [], []
    for _ in range(rounds):
        bare.append(await alone(packages))
        began = time.perf_counter()
        job = await buyer.order(code=PROGRAM, requirements=["small"])
        assert await buyer.follow(job, to_first_line=True) == "word\n"
        bought.append(time.perf_counter() - began)
        await buyer.follow(job)
    low, high = statistics.median(bare) * 1000, statistics.median(bought) * 1000
    print(f"first line: {high:.0f} ms from the order, {low:.0f} ms in bubblewrap alone: {high - low:+.0f} ms")


async def parallel(buyer: Buyer, pids: dict[str, int], jobs: int) -> None:
    """Print what many small jobs at once take."""
    before = {name: rss_mib(pid) for name, pid in pids.items()}
    most = dict(before)

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for name, pid in pids.items():
                most[name] = max(most[name], rss_mib(pid))

    looking = asyncio.create_task(look())
    began = time.perf_counter()
    ordered = await asyncio.gather(*[buyer.order(code=f"print({number})") for number in range(jobs)])
    texts = await asyncio.gather(*map(buyer.follow, ordered))
    took = time.perf_counter() - began
    looking.cancel()
    assert texts == [f"{number}\n" for number in range(jobs)]
    words = [
        f"{name} {before[name]:.0f} MiB, at most {most[name]:.0f}, then {rss_mib(pids[name]):.0f}" for name in pids
    ]
    print(f"{jobs} jobs on {SLOTS} slots: {took:.1f} s, {jobs / took:.0f} a second; {'; '.join(words)}")


async def main(rounds: int, jobs: int) -> None:
    """Start a trading post and a worker, and measure."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packages, index = folder / "packages", folder / "index"
        packages.mkdir()
        index.mkdir()
        (packages / "small.py").write_text("WORD = 'word'")
        wheel(index, "small", "1.0", {"small.py": "WORD = 'word'"})
        os.environ["UV_DEFAULT_INDEX"] = f"file://{simple(index)}"
        async with (
            child("coordinator", str(folder / "data")) as (post, (url, key)),
            child("worker", url, str(folder / "worker")) as (host, _),
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        ):
            buyer = Buyer(session, url, key)
            await buyer.until_offered()
            await first_lines(buyer, packages, rounds)
            await parallel(buyer, {"worker": host, "coordinator": post}, jobs)
            await parallel(buyer, {"worker": host, "coordinator": post}, jobs)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["coordinator", folder]:
            asyncio.run(coordinator(folder))
        case ["worker", url, folder]:
            asyncio.run(worker(url, folder))
        case numbers:
            asyncio.run(main(*map(int, (numbers + [str(ROUNDS), str(JOBS)][len(numbers) :]))))
