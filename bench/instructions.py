"""This tree beside another commit: instructions that a coordinator's processor executes for a life and a completion.

Valgrind's callgrind counts them, so the figure hardly depends on what else the machine does: two runs differ by about
1 %, where CPU time (`bench.beside`) differs by 4 % from one start of a process to the next. Not counted is the kernel's
part, and what caches cost. Coordinators run some fifty times slower than usual; event loop and writer are told apart.

Usage: ``PYTHONPATH=src:. python -m bench.instructions REV [lives|completions|both]``; needs ``valgrind`` (a package of
    Debian's).
"""

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from tests.upgrade.revision import unpack

from bench.bench_completions import COORDINATOR_CPU, LOAD_CPU, Server, child, linked
from bench.bench_lives import Load

HERE = Path(__file__).resolve().parents[1]
CLIENTS = 64
WARM, COUNTED = 300, 900
"""Lives or completions before the count begins, and within it."""

DUMPED_S = 30.0
TOTALS = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)

Run = Callable[[int], Awaitable[object]]
"""Lets the coordinator do so many."""


def control(option: str, value: str, pid: int) -> None:
    """Tell callgrind in process *pid* something."""
    words = ["callgrind_control", option, value, str(pid)] if value else ["callgrind_control", option, str(pid)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


async def prepared(name: str, stack: contextlib.ExitStack, tree: Path, counts: Path) -> tuple[int, Run]:
    """Start a coordinator under callgrind, and what it serves; return its pid and what loads it."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="comptoir-bench-"))
    watched = (
        "valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes",
        f"--callgrind-out-file={counts}",
    )  # fmt: skip
    coordinator = child("coordinator", f"{folder}/data", cpu=COORDINATOR_CPU, tree=tree, under=watched)
    pid, (url, key) = stack.enter_context(coordinator)
    if name == "lives":
        load = Load(urlsplit(url).port or 80, key)
        await load.register()
        return pid, lambda count: load.run(in_flight=CLIENTS, lives=count)
    stack.enter_context(child("worker", url, f"{folder}/worker", "{}", cpu=LOAD_CPU, said=False, tree=tree))
    server = Server(pid, url, key)
    await linked(server)
    return pid, lambda count: server.run(clients=CLIENTS, requests=count)


def totals(folder: Path) -> list[int]:
    """Wait for what callgrind writes to *folder*; return the instructions a life, as `counted` does."""
    until_s = time.monotonic() + DUMPED_S
    while time.monotonic() < until_s:
        time.sleep(1)
        files = sorted(folder.glob("counts.1-*"))
        by_thread = [max(map(int, TOTALS.findall(path.read_text())), default=0) // COUNTED for path in files]
        if by_thread:
            return [by_thread[0], sum(by_thread[1:])]
    sys.exit("callgrind did not write what it counted")


async def counted(name: str, tree: Path) -> list[int]:
    """Return the instructions of one life or completion: of the event loop's thread, and of all others."""
    with tempfile.TemporaryDirectory(prefix="comptoir-bench-") as folder, contextlib.ExitStack() as stack:
        pid, run = await prepared(name, stack, tree, Path(folder) / "counts")
        await run(WARM)
        control("-i", "on", pid)
        await run(COUNTED)
        control("-i", "off", pid)
        control("-d", "", pid)
        return totals(Path(folder))


def main(args: list[str]) -> None:
    rev, name = (*args, *("", "both")[len(args) :])
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is missing: install it (apt-get install valgrind)")
    before = unpack(rev)
    for each in ("lives", "completions") if name == "both" else (name,):
        was, now = uvloop.run(counted(each, before)), uvloop.run(counted(each, HERE))
        print(
            f"{each}: {sum(was):,} instructions before, {sum(now):,} after: {sum(now) / sum(was):.3f}x "
            f"(event loop {was[0]:,} and {now[0]:,}, {now[0] / was[0]:.3f}x)",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
