"""What the sandbox costs: a run of /bin/true from start to report, beside bubblewrap alone and beside no walls at all.

All kinds alternate in one run, so that a busy machine is busy for each.
Usage: ``python -m bench.bench_sandbox [ROUNDS]``
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from comptoir.worker.sandbox import LAYERS, Sandbox
from comptoir.worker.sandbox.layers import bubblewrap_found
from comptoir.worker.sandbox.types import SandboxLimits

ROUNDS = 40
TRUE = "/bin/true"
ALONE = ["--ro-bind", "/usr", "/usr", "--unshare-all", "--proc", "/proc", "--dev", "/dev", "--die-with-parent"]
LINKS = [
    word
    for name in ("bin", "lib", "lib64")
    if os.path.islink(f"/{name}")
    for word in ("--symlink", f"usr/{name}", f"/{name}")
]


async def plain(*command: str) -> None:
    """Run a command as a bare child."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    await process.communicate()
    assert process.returncode == 0, command


def of(sandbox: Sandbox) -> Callable[[], Awaitable[None]]:
    """Return what makes a run, waits for it and erases it."""

    async def whole() -> None:
        run = sandbox.new_run()
        process = await run.start([TRUE], limits=SandboxLimits())
        report = await process.wait()
        assert report.exit_code == 0
        await run.erase()

    return whole


async def main(rounds: int) -> None:
    """Print medians."""
    with tempfile.TemporaryDirectory() as folder:
        sandboxes = [
            Sandbox(Path(folder), layers=[name], control_groups=counted) for name in LAYERS for counted in (True, False)
        ]
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "bare subprocess": lambda: plain(TRUE),
            "bare subprocess + bubblewrap": lambda: plain(bubblewrap_found(), *ALONE, *LINKS, "--", TRUE),
            "an isolated Python that does nothing": lambda: plain(sys.executable, "-I", "-S", "-c", ""),
        }
        for sandbox in sandboxes:
            await sandbox.open()
            counts = "control groups" if sandbox.layer.groups else "looking"
            kinds[f"sandbox, {sandbox.layer.name}, {counts}"] = of(sandbox)
        spent: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(rounds):
            for name, work in kinds.items():
                began = time.perf_counter()
                await work()
                spent[name].append(time.perf_counter() - began)
        for sandbox in sandboxes:
            await sandbox.close()
    beside = statistics.median(spent["bare subprocess + bubblewrap"])
    for name, times in spent.items():
        middle = statistics.median(times)
        print(f"{name:40} {middle * 1000:7.1f} ms   {(middle - beside) * 1000:+7.1f} ms   ratio {middle / beside:5.2f}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
