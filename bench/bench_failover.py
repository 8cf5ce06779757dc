"""How long a stream stands still when its host dies: from ``kill -9`` of a worker process to the next frame, which
another host makes; and the same for ``SIGSTOP``, which leaves the link up and only the frames missing. Default
settings.

Coordinator and two workers are processes of their own. The engine gives 50 tokens a second and names its process in
each, so that frames which were on their way when the host died are not taken for the next one. The time between two
frames of the same streams, undisturbed, is printed beside.

Usage: ``PYTHONPATH=src:. python -m bench.bench_failover [kills]``
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import uvloop

from bench.bench_completions import COORDINATOR_CPU, child
from bench.http_load import percentile
from bench.trivial_engine import TrivialEngine
from comptoir.link import Frame, ModelOffer, Usage
from comptoir.worker.engines.base import EngineRequest, Finish
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig, run_worker

KILLS = 25
TOKENS_PER_S = 50.0
TOKENS = 2_000
WARM_FRAMES = 40
"""Frames read before the host dies: enough to know its pace."""

WAIT_S = 30.0


class SteadyEngine(TrivialEngine):
    """The trivial engine at an even pace, each frame naming its process; it goes on from any prefix."""

    name = "steady"

    async def models(self) -> list[ModelOffer]:
        """Return the one model."""
        return [ModelOffer(name="steady", kinds=["chat"], context_tokens=1_000_000, can_continue=True)]

    async def run(self, request: EngineRequest) -> AsyncIterator[Frame | Finish]:
        """Yield what is left after the prefix."""
        loop = asyncio.get_running_loop()
        due, left = loop.time(), TOKENS - len(request.prefix)
        for _ in range(left):
            due += 1 / TOKENS_PER_S
            await asyncio.sleep(max(0.0, due - loop.time()))
            yield Frame(f"{os.getpid()} ")
        yield Finish("stop", Usage(prompt_tokens=1, completion_tokens=left))


async def worker(url: str, folder: str) -> None:
    """Serve the steady engine until killed."""
    config = WorkerConfig(
        url=url,
        engines=[EngineSpec("bench.bench_failover:SteadyEngine", {})],
        slots=8,
        measure=False,
        state_dir=folder,
        prices={"token_in": 1_000_000, "token_out": 1_000_000},
        drain_s=1.0,
    )
    await run_worker(config, stop=asyncio.Event(), on_event=lambda event: None)


@dataclass
class Figures:
    """Milliseconds."""

    still: list[float] = field(default_factory=list)
    """From the blow to the next frame."""
    gaps: list[float] = field(default_factory=list)
    """Between two frames while nothing happened."""

    def told(self, what: str) -> str:
        """Return one line."""
        still, gaps = sorted(self.still), sorted(self.gaps)
        p50, p99, gap = percentile(still, 0.5), percentile(still, 0.99), percentile(gaps, 0.5)
        return (
            f"{what:10} {len(still)} times: next frame after p50 {p50:.0f} ms, p99 {p99:.0f} ms (longest {still[-1]:.0f}); "
            f"{p50 / gap:.1f} times the {gap:.1f} ms between two frames (p99 {percentile(gaps, 0.99):.1f})"
        )


class Fleet:
    """The worker processes, by folder."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start the worker *name* (again)."""
        command = [sys.executable, "-m", "bench.bench_failover", "worker", self._url, str(self._folder / name)]
        self._processes[name] = subprocess.Popen(command)

    def name_of(self, pid: int) -> str:
        """Return the worker that runs as process *pid*."""
        return next(name for name, process in self._processes.items() if process.pid == pid)

    def kill(self, name: str) -> None:
        """Kill it as no process can refuse."""
        process = self._processes[name]
        process.send_signal(signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        """Kill all."""
        for name in self._processes:
            self.kill(name)


async def until_linked(session: aiohttp.ClientSession, url: str, count: int) -> None:
    """Wait until so many hosts are active."""
    async with asyncio.timeout(WAIT_S):
        while True:
            async with session.get(f"{url}/models") as response:
                models = (await response.json())["models"]
            if any(model["available_hosts"] >= count for model in models):
                return
            await asyncio.sleep(0.02)


async def frames(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[float, int]]:
    """Yield of each frame when it came and which process made it."""
    async for line in response.content:
        if line.startswith(b"data: {"):
            content = json.loads(line[6:])["choices"][0]["delta"].get("content")
            for made in (content or "").split():
                yield time.perf_counter(), int(made)


async def blow(session: aiohttp.ClientSession, url: str, fleet: Fleet, *, kill: bool, figures: Figures) -> None:
    """Stream one answer, strike its host in the middle, and wait for the next frame."""
    asked = {"model": "steady", "messages": [{"role": "user", "content": "go"}], "max_tokens": TOKENS, "stream": True}
    async with asyncio.timeout(WAIT_S), session.post(f"{url}/v1/chat/completions", json=asked) as response:
        assert response.status == 200, await response.text()
        stream, seen, last_s, struck_s, victim = frames(response), 0, 0.0, 0.0, 0
        async for at_s, made in stream:
            if struck_s and made != victim:
                figures.still.append((at_s - struck_s) * 1000)
                break
            if struck_s:
                continue
            seen += 1
            if seen > WARM_FRAMES // 2:
                figures.gaps.append((at_s - last_s) * 1000)
            last_s = at_s
            if seen == WARM_FRAMES:
                victim, struck_s = made, time.perf_counter()
                os.kill(made, signal.SIGKILL if kill else signal.SIGSTOP)
    name = fleet.name_of(victim)
    if kill:
        fleet.kill(name)
        fleet.start(name)
    else:
        os.kill(victim, signal.SIGCONT)
    await until_linked(session, url, 2)


async def measure(kills: int) -> None:
    """Print how long streams stand still."""
    with (
        tempfile.TemporaryDirectory() as folder,
        child("coordinator", f"{folder}/data", cpu=COORDINATOR_CPU) as (_, words),
    ):
        url, key = words[0], words[1]
        fleet = Fleet(url, Path(folder))
        with contextlib.closing(fleet):
            async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:
                fleet.start("one")
                fleet.start("two")
                await until_linked(session, url, 2)
                for what, kill in (("kill -9", True), ("SIGSTOP", False)):
                    figures = Figures()
                    for _ in range(kills):
                        await blow(session, url, fleet, kill=kill, figures=figures)
                    print(figures.told(what), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        uvloop.run(worker(*sys.argv[2:]))
    else:
        uvloop.run(measure(int(sys.argv[1]) if sys.argv[1:] else KILLS))
