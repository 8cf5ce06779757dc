"""This tree beside another commit: coordinator CPU of a job life and of a completion, in alternating windows (A B A B).

Both coordinators run at once on one core, each from its own tree and with the same interpreter and libraries; the load,
of this tree, has the other core and turns from one to the other window by window. Each round starts both anew, so that
where a process happens to lie in memory is averaged too. Printed are the medians over all windows and their ratio, with
the range in which the middle half of the paired ratios lies.

Usage: ``make beside FROM=REV``, or
    ``PYTHONPATH=src:. python -m bench.beside REV [lives|completions|both] [rounds] [windows]``.
"""

import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from tests.upgrade.revision import unpack

from bench.bench_completions import COORDINATOR_CPU, LOAD_CPU, Server, child, cpu_s, linked
from bench.bench_lives import Load

HERE = Path(__file__).resolve().parents[1]
CLIENTS = 64
LIVES, REQUESTS = 1200, 2500
"""Of one window: two to four seconds on the machines we use."""

Window = Callable[[], Awaitable[float]]
"""Load one coordinator for a while; return its CPU microseconds a life or a request."""


async def lives(stack: contextlib.ExitStack, tree: Path) -> Window:
    """Start a coordinator with polling hosts."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="comptoir-bench-"))
    pid, (url, key) = stack.enter_context(child("coordinator", folder, cpu=COORDINATOR_CPU, tree=tree))
    load = Load(urlsplit(url).port or 80, key)
    await load.register()
    await load.run(in_flight=16, lives=300)

    async def window() -> float:
        before = cpu_s(pid)
        await load.run(in_flight=CLIENTS, lives=LIVES)
        return (cpu_s(pid) - before) / LIVES * 1e6

    return window


async def completions(stack: contextlib.ExitStack, tree: Path) -> Window:
    """Start a coordinator with a linked worker of the same tree."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="comptoir-bench-"))
    pid, (url, key) = stack.enter_context(child("coordinator", f"{folder}/data", cpu=COORDINATOR_CPU, tree=tree))
    stack.enter_context(child("worker", url, f"{folder}/worker", "{}", cpu=LOAD_CPU, said=False, tree=tree))
    server = Server(pid, url, key)
    await linked(server)
    await server.run(clients=16, requests=500)

    async def window() -> float:
        _, cpu = await server.run(clients=CLIENTS, requests=REQUESTS)
        return cpu / REQUESTS * 1e6

    return window


async def compare(name: str, before: Path, *, rounds: int, windows: int) -> None:
    """Measure *windows* pairs in each of *rounds* fresh pairs of coordinators, and print what came out."""
    start = {"lives": lives, "completions": completions}[name]
    pairs: list[tuple[float, float]] = []
    for _ in range(rounds):
        with contextlib.ExitStack() as stack:
            old, new = await start(stack, before), await start(stack, HERE)
            for turn in range(windows):
                if turn % 2:
                    after_us, before_us = await new(), await old()
                else:
                    before_us, after_us = await old(), await new()
                pairs.append((before_us, after_us))
                print(f"  {name} {len(pairs):>3}: {before_us:>7.0f} {after_us:>7.0f} us", flush=True)
    was, now = (statistics.median(side) for side in zip(*pairs, strict=True))
    low, middle, high = statistics.quantiles((b / a for a, b in pairs), n=4)
    print(
        f"{name}: median of {len(pairs)} windows each: before {was:.0f}, after {now:.0f} us of coordinator CPU: "
        f"{now / was:.3f}x (pairs: {middle:.3f}x, half of them within {low:.3f} to {high:.3f})",
        flush=True,
    )


def main(args: list[str]) -> None:
    rev, name, rounds, windows = (*args, *("", "both", "4", "6")[len(args) :])
    before = unpack(rev)
    os.sched_setaffinity(0, {LOAD_CPU})
    for each in ("lives", "completions") if name == "both" else (name,):
        uvloop.run(compare(each, before, rounds=int(rounds), windows=int(windows)))


if __name__ == "__main__":
    main(sys.argv[1:])
