"""What a program leaves: which of its files are delivered, and in what words it ended."""

import mimetypes
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from comptoir.kinds.extras import BadExtra
from comptoir.kinds.files import FILE_EXTRA_BYTES_MAX, NAME_CHARS_MAX, ProgramFailure, file_frame
from comptoir.kinds.python import Python
from comptoir.kit.file_names import fit_name
from comptoir.link import Frame
from comptoir.worker.engines.python.channel import Channel
from comptoir.worker.engines.python.layout import Left
from comptoir.worker.sandbox.results import list_results
from comptoir.worker.sandbox.types import EndReason, RunReport

INLINE_BYTES_MAX = FILE_EXTRA_BYTES_MAX // 2
"""Longest result that stands in a frame; a longer one, or one nested deeper than frames may be, is a file."""
RESULT_FILE = "result.json"

_WORDS = {
    EndReason.STOPPED: ("wall", "its time was up"),
    EndReason.WALL: ("wall", "its time was up"),
    EndReason.CPU: ("cpu", "it used all of its processor time"),
    EndReason.MEMORY: ("memory", "it used more memory than agreed"),
    EndReason.PROCESSES: ("processes", "it had more processes than agreed"),
    EndReason.FILE_BYTES: ("disk", "it wrote a file longer than its disk"),
    EndReason.DISK_BYTES: ("disk", "it wrote more than agreed"),
    EndReason.DISK_FILES: ("disk", "it made too many files"),
    EndReason.OUTPUT: ("output", "it printed more than agreed; the first part is kept"),
}
_media = mimetypes.MimeTypes()


class ProgramEnd(msgspec.Struct, frozen=True):
    """How a program ended, in the kind's words (`comptoir.kinds.python.REASONS`)."""

    reason: str
    message: str = ""
    exit_code: int | None = None

    def frame(self, wall_ms: int, result: bytes | None) -> Frame:
        """Return the last frame: the result, how it ended, and all of the time."""
        said = msgspec.UNSET if result is None else msgspec.Raw(result)
        failed = None
        if self.reason != "stop":
            failed = ProgramFailure(self.reason, self.message[:500], self.exit_code)
        return file_frame("", wall_ms, result=said, finish_reason=self.reason, failed=failed)


def how_it_ended(report: RunReport, channel: Channel, *, calls: str) -> ProgramEnd:
    """Return how the program ended."""
    if report.reason is not EndReason.EXITED:
        return ProgramEnd(*_WORDS[report.reason])
    code = report.exit_code or 0
    if code == 0:
        if calls and channel.result is None:
            return ProgramEnd("result", f"it ended without returning from {calls}", 0)
        return ProgramEnd("stop")
    if channel.error and channel.kind in ("memory", "disk", "result"):
        return ProgramEnd(channel.kind, channel.error, code)
    signal = f" (by signal {code - 128})" if code > 128 else ""
    return ProgramEnd("exit", channel.error or f"it ended with exit code {code}{signal}", code)


def fits(result: bytes) -> bool:
    """Tell whether *result* may stand in a frame."""
    if len(result) > INLINE_BYTES_MAX:
        return False
    try:
        Python().check_extra(file_frame(result=msgspec.Raw(result)).extra)
    except BadExtra:
        return False
    return True


def readable(result: bytes) -> bool:
    """Tell whether *result* is JSON that a file may hold: what a program wrote by itself may be anything."""
    try:
        msgspec.json.decode(result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def files_left(work: Path, before: Left, patterns: Sequence[str] | None) -> list[str]:
    """Return the plain files below *work* that are to be delivered: new or changed, and as asked for. Blocks.

    Raises:
        NoResult: there are more than can be listed.
    """
    found = []
    for each in list_results(work):
        facts = os.stat(work / each.name, follow_symlinks=False)
        if before.get(each.name) == (facts.st_size, facts.st_mtime_ns):
            continue
        if patterns is None or any(fnmatchcase(each.name, pattern) for pattern in patterns):
            found.append(each.name)
    return found


def artifact_names(paths: Sequence[str]) -> list[str]:
    """Return what files are called as artifacts: their paths with ``_`` for ``/`` and what no name has, each once."""
    taken: set[str] = set()
    names = []
    for path in paths:
        plain = fit_name(path)
        stem, dot, end = plain.rpartition(".")
        stem, end = (stem, f".{end[:20]}") if dot and stem else (plain, "")
        name, number = f"{stem[: NAME_CHARS_MAX - len(end)]}{end}", 1
        while name in taken or name in (".", ".."):
            number += 1
            tail = f"-{number}{end}"
            name = f"{stem[: NAME_CHARS_MAX - len(tail)]}{tail}"
        taken.add(name)
        names.append(name)
    return names


def media_of(name: str) -> str:
    """Return the media type that a file's name stands for; empty: none is known."""
    kind, encoding = _media.guess_type(name)
    return "" if kind is None or encoding is not None else kind
