"""What the tests cost: CPU-seconds of the whole run, of each file, and of a loop that says how fast this machine is.

`make test` prints it at the end; the budget stands in CONTRIBUTING.md. CPU is user and system time of the test
processes and of all that they started and waited for (as ``time`` counts it); a file is charged what passes in its
process while it runs.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from tests.leftovers import Leftovers
from tests.servers import shared_cpu_s

SLOWEST = 10
"""Files that are named."""

BUDGET_LOOPS = 8_400
"""What `make test` may cost, in multiples of the calibration loop: 4,800 at the end of November 2026, half of what it
was before, and 1,200 for each of what came since: files, webhooks, jobs with files and their first three kinds."""

ROUNDS = 2_000_000
"""Of the loop that machines are compared by: 0.06 to 0.15 s on the machines we use."""


def cpu_s() -> float:
    """Return the CPU-seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def calibration_s() -> float:
    """Return the CPU-seconds of a loop of plain Python: the least of three."""
    tries = []
    for _ in range(3):
        before, total = time.process_time(), 0
        for number in range(ROUNDS):
            total ^= number
        tries.append(time.process_time() - before)
    return min(tries)


class Budget:
    """Counts in each process, and prints in the one that the others report to."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._costs: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        """By file: CPU-seconds and wall seconds."""
        self._others_s = 0.0
        self._last = cpu_s(), time.monotonic()

    def _charge(self, file: str) -> None:
        now = cpu_s(), time.monotonic()
        for at, (before, after) in enumerate(zip(self._last, now, strict=True)):
            self._costs[file][at] += after - before
        self._last = now

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Charge the file of *item* with what passes until its next test is over, fixtures included."""
        self._last = cpu_s(), time.monotonic()
        result = yield
        self._charge(str(item.path.relative_to(self._config.rootpath)))
        return result

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Report to the process that started this one, if there is one."""
        out: dict[str, Any] | None = getattr(self._config, "workeroutput", None)
        if out is not None:
            out["costs"], out["cpu_s"] = dict(self._costs), cpu_s()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a process reports."""
        out = getattr(node, "workeroutput", {})
        self._others_s += out.get("cpu_s", 0.0)
        for file, (cpu, wall) in out.get("costs", {}).items():
            self._costs[file][0] += cpu
            self._costs[file][1] += wall

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the total, the calibration, and the dearest files."""
        if not self._costs or hasattr(self._config, "workeroutput"):
            return
        loop_s = calibration_s()
        # With xdist the children have been waited for: they are in our own count already.
        total = max(cpu_s(), self._others_s)
        leftovers = self._config.pluginmanager.getplugin("leftovers")
        assert isinstance(leftovers, Leftovers)
        # The server is nobody's child; its time was never in the total.
        postgres_s = shared_cpu_s(leftovers.run)
        terminalreporter.section("cost")
        terminalreporter.line(
            f"{total:.0f} CPU-seconds, {total / loop_s:,.0f} times the calibration loop ({loop_s:.3f} s here), "
            f"of a budget of {BUDGET_LOOPS:,}; {postgres_s:.0f} more of PostgreSQL. The dearest files:"
        )
        if total / loop_s > BUDGET_LOOPS:
            terminalreporter.line(
                f"Over the budget by {total / loop_s / BUDGET_LOOPS - 1:.0%}: see CONTRIBUTING.md.", yellow=True
            )
        dearest = sorted(self._costs.items(), key=lambda cost: -cost[1][0])[: self._config.getoption("costs")]
        for file, (cpu, wall) in dearest:
            terminalreporter.line(f"{cpu:>8.1f} CPU-s {wall:>7.1f} s  {file}")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let more files be named."""
    parser.addoption("--costs", type=int, default=SLOWEST, metavar="N", help="name the N dearest files at the end")


def pytest_configure(config: pytest.Config) -> None:
    """Count from here on."""
    config.pluginmanager.register(Budget(config), "budget")
