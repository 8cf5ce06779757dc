"""What a program left as its results: plain files below its work folder, and nothing that only looks like one."""

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from comptoir.worker.sandbox import launch
from comptoir.worker.sandbox.usage import DEPTH_MAX

RESULTS_MAX = 10_000
"""Files given of one run."""
NAME_BYTES_MAX = 1024
"""Longest path of one, from the work folder."""

_OPENAT2 = 437
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 1, 2, 4, 8


class NoResult(Exception):
    """What was asked for is no result; *why* says what it is instead."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name!r} {why}")
        self.name = name
        self.why = why


class ResultFile(msgspec.Struct, frozen=True):
    """A plain file below the work folder."""

    name: str
    """Its path from there, with slashes."""
    size: int
    """Bytes when it was looked at."""


def list_results(work: Path, *, files_max: int = RESULTS_MAX) -> list[ResultFile]:
    """Return the plain files below *work*, sorted by name. Blocks some 10 µs a file.

    What is no result is left out: links, hard links, pipes, sockets, names that are no UTF-8 or too long.

    Raises:
        NoResult: there are more than *files_max*.
    """
    found: list[ResultFile] = []
    for name, facts in _walk(work):
        if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1 and len(os.fsencode(name)) <= NAME_BYTES_MAX:
            with contextlib.suppress(UnicodeEncodeError):
                name.encode()
                found.append(ResultFile(name, facts.st_size))
        if len(found) > files_max:
            raise NoResult(str(work.name), f"holds more than {files_max} files")
    return sorted(found, key=lambda each: each.name)


def _walk(work: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Give everything below *work* that is no folder, never through a link."""
    for here, folders, files, descriptor in os.fwalk(work, follow_symlinks=False):
        inner = os.path.relpath(here, work)
        if inner.count("/") >= DEPTH_MAX:
            folders.clear()
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                path = name if inner == "." else f"{inner}/{name}"
                yield path, os.stat(name, dir_fd=descriptor, follow_symlinks=False)


def open_result(work: Path, name: str) -> BinaryIO:
    """Open a result for reading: a plain file that is truly below *work*. Never waits, as a pipe would have it.

    Raises:
        NoResult: it is not there, leads elsewhere, or is no plain file.
    """
    if not name or name.startswith("/") or "\0" in name:
        raise NoResult(name, "is no name of a result")
    folder = os.open(work, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = struct.pack(
            "=QQQ",
            os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY,
            0,
            _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS | _NO_XDEV,
        )
        path = os.fsencode(name)
        descriptor = launch.call("syscall", _OPENAT2, folder, ctypes.c_char_p(path), how, len(how))
    except OSError as error:
        raise NoResult(name, f"can't be opened as a result: {error.strerror}") from error
    finally:
        os.close(folder)
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
        os.close(descriptor)
        raise NoResult(name, "is no plain file with a single name")
    return os.fdopen(descriptor, "rb")
