"""What people see of a job while it runs: what it writes, and one line with how far it is and what it costs."""

import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any

import click
from rich.console import RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from comptoir.cli.failure import Failure
from comptoir.cli.harmless import as_read, harmless
from comptoir.cli.screen import credits, err, short
from comptoir.cli.work.outcome import STDERR, STDOUT, WorkOutcome
from comptoir.kinds import MILLION, Kinds

LOOK_S, LOOK_SELDOM_S = 0.5, 5.0
"""How often the job is looked at for what its frames do not say: while it waits for a host, and once it has one."""

LINE_CHARS_MAX = 4096
"""Longest beginning of a line that waits for its end where the moving line stands below it."""

BAR_COLUMNS = 24
REFRESH_PER_S = 8

SHIPPED = Kinds()

Look = Callable[[], dict[str, Any]]
"""Returns the job as `GET /house/jobs/{id}` has it."""


def spent_uusd(job: dict[str, Any], outcome: WorkOutcome, running_ms: int) -> int | None:
    """Return about what a job has cost so far: of finished attempts what was paid, and of the open one its price for
    what it has made. None: nothing is known of it yet.

    It may come to less: a kind whose results count whole is paid nothing for half of one.
    """
    if not job.get("attempts"):
        return None
    *former, open_one = job["attempts"]
    paid = sum(one["paid_uusd"] for one in job["attempts"])
    if open_one["ended_ms"] is not None or not open_one["prices"]:
        return int(paid)
    count = outcome.progress.get("count")
    if count is None:
        timed = SHIPPED.stored(job["kind"]).timed
        count = running_ms if timed else max(0, outcome.count - sum(one["units"][-1]["count"] for one in former))
    return int(paid + count * open_one["prices"][-1]["uusd_per_million"] // MILLION)


class WorkScreen:
    """One moving line on standard error while somebody watches; what the program writes goes where it wrote it.

    In a pipe, the program's standard output is this one's, byte for byte, and so is its standard error. Where only the
    moving line and the output share a terminal, the output stands above the line.
    """

    def __init__(self, label: str, look: Look, *, quiet: bool, ctrl_c: str) -> None:
        """
        Args:
            quiet: standard output is for something else: what the program writes is shown only to who watches.
            ctrl_c: what Ctrl-C does.
        """
        self._label, self._look, self._quiet, self._ctrl_c = label, look, quiet, ctrl_c
        self._watched = sys.stderr.isatty()
        self._held = {STDOUT: "", STDERR: ""}
        self._outcome = WorkOutcome()
        self._job: dict[str, Any] = {}
        self._began_s = time.monotonic()
        self._running_s = 0.0
        """Monotonic time since which it runs, as far as was seen; 0: it does not."""
        self._broken_for_s = 0.0
        self._over = threading.Event()
        self._looker = threading.Thread(target=self._keep_looking, daemon=True)
        self._live = Live(
            get_renderable=self._render, console=err(), refresh_per_second=REFRESH_PER_S, transient=True,
            redirect_stdout=False, redirect_stderr=False,
        ) if self._watched else None  # fmt: skip

    def start(self) -> None:
        """Show the line."""
        if self._live is not None:
            self._live.start()
            self._looker.start()

    def stop(self) -> None:
        """Take the line away, behind everything that was written."""
        if self._live is not None and not self._over.is_set():
            self._over.set()
            for stream, rest in self._held.items():
                self._show(stream, [rest] if rest else [])
            self._live.stop()

    def write(self, stream: str, text: str) -> None:
        """Show more of what the program writes to *stream*."""
        if self._live is None:
            if not self._quiet:
                _raw(sys.stdout if stream == STDOUT else sys.stderr, text)
        elif stream == STDOUT and not self._quiet and not sys.stdout.isatty():
            _raw(sys.stdout, text)
        else:
            *lines, rest = (self._held[stream] + text).split("\n")
            if len(rest) > LINE_CHARS_MAX:
                lines, rest = [*lines, rest], ""
            self._held[stream] = rest
            self._show(stream, lines)

    def say(self, words: str) -> None:
        """Say something that is no output of the program."""
        if self._live is not None:
            self._live.console.print(Text(f"▲ {words}", style="yellow"), soft_wrap=True)
        else:
            click.echo(words, err=True)

    def moved(self, outcome: WorkOutcome) -> None:
        """The job is this far."""
        self._outcome, self._broken_for_s = outcome, 0.0
        self._running_s = self._running_s or time.monotonic()

    def broke(self, for_s: float) -> None:
        """The connection is broken since *for_s* seconds; another try follows."""
        self._broken_for_s = for_s or 0.1

    def _show(self, stream: str, lines: list[str]) -> None:
        if lines and self._live is not None:
            style = "dim" if stream == STDERR or self._quiet else ""
            self._live.console.print(Text(harmless("\n".join(lines)), style=style), soft_wrap=True)

    def _keep_looking(self) -> None:
        while not self._over.wait(LOOK_SELDOM_S if self._job.get("state") == "running" else LOOK_S):
            try:
                self._job = self._look()
            except (Failure, ValueError):
                continue  # Whoever reads the stream says what is wrong.
            if self._job.get("state") == "running":
                self._running_s = self._running_s or time.monotonic()

    def _render(self) -> RenderableType:
        done, line = self._outcome.progress.get("done"), Table.grid(padding=(0, 1))
        cells: list[RenderableType] = [Spinner("dots"), Text(harmless(self._label), style="bold", no_wrap=True)]
        line.add_column()
        line.add_column(no_wrap=True)
        if done is not None:
            cells += [ProgressBar(total=1.0, completed=done, width=BAR_COLUMNS), Text(f"{done:4.0%}")]
            line.add_column()
            line.add_column(no_wrap=True)
        line.add_column(no_wrap=True, overflow="ellipsis")
        line.add_row(*cells, Text(" · ".join([*self._facts(), self._ctrl_c]), style="dim"))
        return line

    def _facts(self) -> list[str]:
        now_s = time.monotonic()
        for_s = f"{now_s - (self._running_s or self._began_s):.0f} s"
        if self._broken_for_s:
            return [f"the connection broke {self._broken_for_s:.0f} s ago, resuming as soon as a server answers"]
        job = self._job
        if not self._running_s:
            before = job.get("queue_position")
            place = f" ({before} before it)" if before else ""
            return [f"waiting for a host{place}", for_s]
        said = [harmless(str(self._outcome.progress.get("note") or "running")), for_s]
        spent = spent_uusd(job, self._outcome, round((now_s - self._running_s) * 1000))
        if spent:
            said.append(f"about {credits(spent)} of at most {credits(job['hold_uusd'])} credits")
        return [*said, *([short(job["host"])] if job.get("host") else [])]


def _raw(stream: IO[str], text: str) -> None:
    stream.write(as_read(text, stream))
    stream.flush()
