"""What of this machine media are read and made with, and a look at one file with it."""

from collections.abc import Mapping

import msgspec

from comptoir.worker.engines.ffmpeg.command import probe_words, report_words
from comptoir.worker.engines.ffmpeg.media import Media, read_probe, read_report
from comptoir.worker.engines.ffmpeg.program import FfmpegProgram
from comptoir.worker.engines.ffmpeg.running import SIGNALLED, Words, check_ended, run_to_end
from comptoir.worker.sandbox.process import SandboxRun
from comptoir.worker.sandbox.types import MIB, Bound, EndReason, SandboxLimits

REPORT_BYTES_MAX = 2 * MIB
"""Most of a report that is read; one of 256 streams has some 300 KiB."""
PROBE_S = 60.0
"""Longest look at a file."""


class Tools(msgspec.Struct, frozen=True):
    """What of this machine films and sounds are made with."""

    program: FfmpegProgram
    sandboxed: bool
    encoders: Mapping[str, str]
    """What makes each codec here."""
    limits: SandboxLimits
    """Of one job."""
    bytes_max: int
    """Longest file that is made."""

    @property
    def ffmpeg(self) -> str:
        """Where a program in the sandbox finds it."""
        return self.program.path(self.program.ffmpeg, sandboxed=self.sandboxed)

    @property
    def ffprobe(self) -> str:
        """The same of ffprobe; empty: there is none."""
        return self.program.ffprobe and self.program.path(self.program.ffprobe, sandboxed=self.sandboxed)


async def probe(tools: Tools, run: SandboxRun, place: str, *, given: Bound) -> Media | str:
    """Return what is in a file, or why nothing can be read of it.

    Args:
        place: where a program in the sandbox finds the file.
        given: what of this machine the sandbox shows for it.

    Raises:
        EngineError: the look itself did not end by itself.
    """
    words = probe_words(tools.ffprobe, place) if tools.ffprobe else report_words(tools.ffmpeg, place)
    out, err = Words(REPORT_BYTES_MAX), Words(REPORT_BYTES_MAX)
    limits = msgspec.structs.replace(tools.limits, wall_s=min(PROBE_S, tools.limits.wall_s))
    inputs = [*tools.program.bound, given]
    report = await run_to_end(run, words, inputs=inputs, limits=limits, sinks=(out.take, err.take))
    if report.reason is not EndReason.EXITED or report.exit_code == SIGNALLED:
        check_ended(report, err, doing="looking at it")
    if not tools.ffprobe:
        # Asked for a report alone, ffmpeg ends with 1, because it was given nothing to make.
        media = read_report(err.first.decode(errors="replace"))
    else:
        media = read_probe(bytes(out.first)) if report.exit_code == 0 else None
    return media or err.reason.replace(place, "the input")
