"""Python: a program of the buyer's, run by a host behind walls, sold by the second of time and by the CPU second.

The order is `PythonOrder` (docs/kinds/python.md). A result is whole or not there: logs and progress count nothing, and
the last frame carries the result, how it ended, and all the time. A program that fails by its own doing has used that
time all the same: it ends the job in its own words (`REASONS`), and is paid.
"""

from comptoir.kinds.capabilities import NONE
from comptoir.kinds.files import FileKind, extra_of
from comptoir.kinds.kind import Progress
from comptoir.kinds.python.order import CAPABILITIES, BadOrder, Limits, PythonOrder, read_order
from comptoir.kinds.terms import Ask, Part
from comptoir.kinds.units import Unit
from comptoir.link import Usage

WALL = Unit("wall_ms", "second", "seconds", 1_000, "second", "a second", shown=1_000, usual_rate=20_000)
CPU = Unit("cpu_ms", "CPU second", "CPU seconds", 1_000, "CPU second", "a CPU second", shown=1_000, usual_rate=40_000)

REASONS = ("stop", "exit", "result", "wall", "cpu", "memory", "processes", "disk", "output", "files")
"""How a program ends: as it should; with an exit code; without a result, or with one that is no JSON; by the limit of
its time, its processor time, its memory, its processes, its disk or its log; with files that can't be delivered."""

AROUND_S = 900.0
"""Time beside the program's own, in which its inputs and packages are fetched and its files delivered, seconds."""


class Python(FileKind):
    """A buyer's Python program."""

    name = "python"
    input = CPU
    output = WALL
    timed = True
    pays_half = False
    pays_lost = False
    output_over_max = 5_000  # A program that is ended at its limit takes a moment.
    capabilities = CAPABILITIES

    def check(self, body: bytes) -> str:
        """Return what is wrong with an order's body; empty: nothing."""
        try:
            read_order(body)
        except BadOrder as bad:
            return str(bad)
        return ""

    def output_max(self, body: bytes) -> int:
        """Return the milliseconds that the program may take."""
        return _limits(body).wall_s * 1_000

    def cores(self, body: bytes) -> int:
        """Return the processors that it may keep busy, which bound the processor time."""
        return _limits(body).cores

    def runs_s(self, body: bytes) -> float:
        """Return the program's time, and that around it."""
        return _limits(body).wall_s + AROUND_S

    def parts(self, ask: Ask) -> tuple[Part, ...]:
        """Return one part: the processor time that was agreed, and the time."""
        most_ms = _limits(ask.body).cpu_most_s * 1_000
        return (Part(ask.model, input_max=most_ms, input_expected=most_ms, output_max=ask.output_max),)

    def asks(self, body: bytes) -> frozenset[str]:
        """Return what a host must be able to do: hold the program, grant its limits, and what else it names."""
        try:
            return read_order(body).asks
        except BadOrder:
            return NONE

    def wrong_output(self, job: Progress, *, finish_reason: str, usage: Usage) -> str:
        """Return why this is no end of a program: the last frame says how it ended, and counts all the time."""
        if finish_reason not in REASONS:
            return f"a program ends with one of {', '.join(REASONS)}, not with {finish_reason!r}"
        if usage.details:
            return "a program is counted by its time and its processor time alone"
        last = job.frames[-1] if len(job.frames) > job.segment_start else None
        if last is None or extra_of(last).finish_reason != finish_reason:
            return "the last frame of a program says how it ended"
        if last.tokens != job.segment_claim:
            return "the time of a program is counted with its result, in the last frame alone"
        return ""


def _limits(body: bytes) -> Limits:
    """Return the limits in an order; those of an empty one where it is none, which is then refused."""
    try:
        return read_order(body).limits
    except BadOrder:
        return Limits()


__all__ = ["BadOrder", "Python", "PythonOrder", "read_order"]
