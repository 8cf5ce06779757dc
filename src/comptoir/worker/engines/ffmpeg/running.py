"""One use of ffmpeg or ffprobe in the sandbox: what it says while it works, and what became of it."""

import re
from collections.abc import Callable, Sequence

from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.programs import Relay
from comptoir.worker.sandbox.process import SandboxRun
from comptoir.worker.sandbox.types import Bound, EndReason, RunReport, SandboxLimits, Sink

LOG_BYTES_MAX = 64 * 1024
"""Of what ffmpeg complains of, what the buyer is shown. A broken film can be complained of a packet at a time."""
TAIL_BYTES = 4 * 1024
"""Of the end of it, what the reason of a failure is looked for in."""
SAID_CHARS_MAX = 300
"""Longest reason of a failure."""
LINE_BYTES_MAX = 1024
"""Longest line of a log or of progress that is looked at."""

_PREFIX = re.compile(rb"^(?:\[[^\]]{1,60} @ 0x[0-9a-f]+\] ?)+")
_NOT_READ = "Format not on whitelist"
_EMPTY_WORDS = ("Error opening input file", "Error opening input files", "Conversion failed", "Exiting ")
ENVIRONMENT = {"SVT_LOG": "1"}
"""One encoder has a log of its own, which speaks of everything."""
SIGNALLED = 128 + 9
"""Exit code of a program that somebody else killed: the kernel, for want of memory, or the owner."""

BUYERS = {
    EndReason.MEMORY: "more memory than this host gives a film",
    EndReason.CPU: "more processor time than this host gives a film",
    EndReason.WALL: "longer than this host works on a film",
    EndReason.FILE_BYTES: "a larger file than this host keeps",
    EndReason.OUTPUT: "more words of complaint than this host reads",
}


class Words:
    """Keeps the beginning of an output, and its end."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.first = bytearray()
        self.last = bytearray()

    async def take(self, piece: bytes) -> None:
        """Take a piece; a sink."""
        self.first += piece[: max(0, self.most - len(self.first))]
        self.last = (self.last + piece)[-TAIL_BYTES:]

    @property
    def reason(self) -> str:
        """The last thing that it says why, in a line."""
        lines = [_PREFIX.sub(b"", line).decode(errors="replace").strip() for line in bytes(self.last).splitlines()]
        if any(line.startswith(_NOT_READ) for line in lines):
            return "its format is not one that is read here"
        lines = [line for line in lines if line and not line.startswith(_EMPTY_WORDS)]
        return lines[-1][:SAID_CHARS_MAX] if lines else "it does not say why"


class ProgressLines:
    """Reads ``-progress``: lines ``key=value``, of which each block ends with ``progress=``."""

    def __init__(self) -> None:
        self._line = b""
        self._block: dict[str, str] = {}
        self.frames = 0
        self.seconds = 0.0
        self.size = 0
        self.speed = ""
        self.ended = False
        """Whether the last block was there: ffmpeg came to its own end."""

    def feed(self, piece: bytes) -> bool:
        """Take a piece; tell whether a block ended in it."""
        *lines, self._line = (self._line + piece).split(b"\n")
        self._line = self._line[-LINE_BYTES_MAX:]
        ended = False
        for line in lines:
            key, _, value = line.decode(errors="replace").strip().partition("=")
            self._block[key[:64]] = value.strip()[:64]
            if key == "progress":
                self._read(self._block)
                self._block, ended = {}, True
        return ended

    def _read(self, block: dict[str, str]) -> None:
        def number(key: str, before: int) -> int:
            text = block.get(key, "")
            return int(text) if text.isascii() and text.isdigit() else before

        self.frames = number("frame", self.frames)
        self.seconds = number("out_time_us", int(self.seconds * 1e6)) / 1e6
        self.size = number("total_size", self.size)
        self.speed = block.get("speed", "").strip()
        self.ended = block.get("progress") == "end"


async def run_to_end(
    run: SandboxRun,
    words: Sequence[str],
    *,
    inputs: Sequence[Bound],
    limits: SandboxLimits,
    sinks: tuple[Sink, Sink],
) -> RunReport:
    """Run a program; return how it ended. Cancelled, it ends the program first. *sinks* take its two outputs.

    Raises:
        SandboxFailed: it could not be started.
    """
    process = await run.start(
        words, limits=limits, inputs=inputs, env=ENVIRONMENT, on_stdout=sinks[0], on_stderr=sinks[1]
    )
    try:
        return await process.wait()
    finally:
        await process.stop()


class FilmProgress:
    """What ffmpeg has said of one film so far, passed on through a `Relay`."""

    def __init__(
        self, relay: Relay, *, expected_s: float | None, fps: float, units: Callable[[int, float], int]
    ) -> None:
        """Nothing was said yet.

        Args:
            expected_s: how long it will be; None: not known.
            fps: frames a second, by which its pictures tell how far it is; 0: it has none, or it is not known.
            units: what so many frames and seconds are worth, for what is shown of the costs.
        """
        self.lines = ProgressLines()
        self.words = Words(0)
        self._relay = relay
        self._expected_s = expected_s
        self._fps = fps
        self._units = units
        self._shown = 0
        self._line = b""

    async def progress(self, piece: bytes) -> None:
        """Take a piece of ``-progress``; a sink."""
        if not self.lines.feed(piece):
            return
        lines = self.lines
        # ffmpeg's own time is that of any stream: sound runs ahead, and it went back when the pictures came.
        seconds = lines.frames / self._fps if self._fps else lines.seconds
        done = min(1.0, seconds / self._expected_s) if self._expected_s else None
        whole = f" of {self._expected_s:.1f}" if self._expected_s else ""
        speed = f", {lines.speed}" if lines.speed not in ("", "N/A") else ""
        note = f"{seconds:.1f}{whole} s, {lines.size:,} bytes{speed}"
        self._relay.progress(done=done, note=note, count=self._units(lines.frames, seconds))

    async def complain(self, piece: bytes) -> None:
        """Take a piece of the log; a sink. It is passed on in whole lines, without ffmpeg's addresses in memory."""
        await self.words.take(piece)
        if self._shown >= LOG_BYTES_MAX:
            return
        *lines, self._line = (self._line + piece).split(b"\n")
        self._line = self._line[:LINE_BYTES_MAX]
        for line in lines:
            shown = _PREFIX.sub(b"", line)[:LINE_BYTES_MAX] + b"\n"
            self._shown += len(shown)
            await self._relay.log("stderr", shown)


def check_ended(report: RunReport, words: Words, *, doing: str) -> None:
    """Do nothing if a program ended well.

    Raises:
        EngineError: it did not. What it says of its input, and that it takes too much for it, is the buyer's fault,
            which needs a second host's word; that somebody killed it, or the disk is full, is not.
    """
    if report.reason is EndReason.EXITED and report.exit_code == 0:
        return
    if report.reason is EndReason.EXITED:
        if report.exit_code == SIGNALLED:
            raise EngineError("killed", "ffmpeg was killed on this host", fault="capacity")
        raise EngineError("ffmpeg", f"{doing}: {words.reason}", fault="buyer", status=422)
    if report.reason in BUYERS:
        code = str(report.reason)
        raise EngineError(code, f"{doing} takes {BUYERS[report.reason]}", fault="buyer", status=422)
    if report.reason is EndReason.DISK_BYTES:
        # Of its own length a film ends before that: it is the disk that is full.
        raise EngineError("disk_full", f"{doing} needs more room than this host has left", fault="capacity")
    raise EngineError("ffmpeg", f"{doing}: the run ended by {report.reason}")
