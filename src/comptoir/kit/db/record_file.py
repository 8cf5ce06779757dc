"""The commit record's files: what each commit confirmed, appended after the commit and before anybody is told.

A record is a folder with numbered files. Each begins with the epoch it belongs to and the head at its beginning, and
goes on with one frame per commit that confirmed something; a frame is length, CRC-32 and msgpack. A write goes to the
page cache (4 us) and survives kill -9; `RecordFile.sync` makes it survive a power cut. A torn end is cut off when the
record is opened: what it said is in the database, which is committed first.
"""

import contextlib
import errno
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from comptoir.kit.db.heads import BEGINNING, Head
from comptoir.kit.folderlock import FolderLock, FolderTaken

log = logging.getLogger(__name__)

FILE_BYTES_MAX = 16 * 1024 * 1024
"""A file that is larger is followed by another: with 60 bytes a job, the names of 280,000 jobs."""

FILES_MAX = 4
"""Files of a record that are kept. Head and count are always exact; only names of what was confirmed long ago go."""

FRAME_BYTES_MAX = 4 * 1024 * 1024
"""A frame is at most as large; one that says it is larger is torn."""

RECORDS_MAX = 64
"""Records in one data folder: one for each of the coordinators that share it."""

RECORDS_NAME = "commits"
"""Folder of the records in a coordinator's data folder."""

LOCK_NAME = "lock"
HEAD_NAME = "head.json"
_PREFIX_BYTES = 8


class EpochFrame(msgspec.Struct, frozen=True, array_like=True, tag="epoch"):
    """The first frame of a file."""

    record: bytes
    epoch: int
    entries: int
    head: bytes
    began_ms: int
    reason: str


class CommitFrame(msgspec.Struct, frozen=True, array_like=True, tag="commit"):
    """One commit: the head after it, and what it confirmed."""

    entries: int
    head: bytes
    at_ms: int
    notes: list[bytes]


_decode = msgspec.msgpack.Decoder(EpochFrame | CommitFrame).decode
_encode = msgspec.msgpack.Encoder().encode


def _framed(frame: EpochFrame | CommitFrame) -> bytes:
    body = _encode(frame)
    return len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body


def _frames(data: bytes) -> Iterator[tuple[int, EpochFrame | CommitFrame]]:
    """Yield the whole frames of a file with where each ends; stops at the first that is torn."""
    at = 0
    while at + _PREFIX_BYTES <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        end = at + _PREFIX_BYTES + size
        body = data[at + _PREFIX_BYTES : end]
        if (
            size > FRAME_BYTES_MAX
            or len(body) < size
            or zlib.crc32(body) != int.from_bytes(data[at + 4 : at + 8], "big")
        ):
            return
        try:
            frame = _decode(body)
        except msgspec.DecodeError:
            return
        yield end, frame
        at = end


class RecordSeen(NamedTuple):
    """A record as its files say."""

    folder: Path
    record: bytes
    head: Head
    began_ms: int
    reason: str

    def notes_after(self, entries: int) -> Iterator[bytes]:
        """Yield what this epoch confirmed after its first *entries* notes, as far as the files still have it.

        Reads at most `FILES_MAX` files; for any thread.
        """
        for path in _paths(self.folder):
            epoch = -1
            with contextlib.suppress(FileNotFoundError):  # The oldest may go at any moment.
                for _, frame in _frames(path.read_bytes()):
                    if isinstance(frame, EpochFrame):
                        epoch = frame.epoch
                    elif epoch == self.head.epoch and frame.entries > entries:
                        yield from frame.notes[max(0, len(frame.notes) - (frame.entries - entries)) :]

    def boundaries(self) -> Iterator[tuple[int, bytes]]:
        """Yield entries and hash after each commit of this epoch, oldest first, as far as the files still have it; for
        any thread."""
        for path in _paths(self.folder):
            epoch = -1
            with contextlib.suppress(FileNotFoundError):  # The oldest may go at any moment.
                for _, frame in _frames(path.read_bytes()):
                    epoch = frame.epoch if isinstance(frame, EpochFrame) else epoch
                    if epoch == self.head.epoch:
                        yield frame.entries, frame.head


class RecordFile:
    """The files of one record, for the process that writes them. `append` is for the writer thread."""

    def __init__(self, folder: Path, *, now_ms: int) -> None:
        """Take *folder*, making a new record if there is none in it.

        Raises:
            FolderTaken: another process writes this record.
            OSError: the folder can't be written.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self._lock = FolderLock(folder, name=LOCK_NAME)
        self._lock.take()
        self._file, self._number, self._end = -1, 0, 0
        self.unwritten = self.unsynced = ""
        """Why the last append, and the last sync, failed (the disk is full, for example); empty: it did not."""
        found = _last(folder)
        if found is None:
            self.record, self.head, self.began_ms, self.reason = os.urandom(16), BEGINNING, now_ms, ""
            self._next(BEGINNING)
            return
        path, self._end, seen = found
        self.record, self.head, self.began_ms, self.reason = seen.record, seen.head, seen.began_ms, seen.reason
        self._number = int(path.stem)
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if os.fstat(self._file).st_size > self._end:
            log.warning("the commit record ended with a torn frame, which is cut off")
            os.ftruncate(self._file, self._end)

    @property
    def seen(self) -> RecordSeen:
        """The record as it is now."""
        return RecordSeen(self.folder, self.record, self.head, self.began_ms, self.reason)

    def append(self, head: Head, notes: Sequence[bytes], *, at_ms: int) -> None:
        """Add one commit, after which the record is at *head*.

        A write that fails is logged; the next one says where the record is by then, without the names of what is
        missing.
        """
        before, self.head = self.head, head
        frame = _framed(CommitFrame(head.entries, head.sha256, at_ms, list(notes)))
        try:
            if not 0 < self._end <= FILE_BYTES_MAX:
                self._next(before)
            self._write(frame)
            self.unwritten = ""
        except OSError as error:
            if not self.unwritten:
                log.error("the commit record can't be written: %s", error)
            self.unwritten = _words(error)

    def begin_epoch(self, head: Head, *, began_ms: int, reason: str) -> None:
        """Begin an epoch at *head*, in a new file that is durable before the return.

        A write that fails is logged: the database, which is ahead then, is followed at the next start.
        """
        self.head, self.began_ms, self.reason = head, began_ms, reason
        try:
            self._next(head)
            os.fsync(self._file)
        except OSError as error:
            log.error("the commit record's new epoch can't be written: %s", error)
            self.unwritten = _words(error)

    def _next(self, head: Head) -> None:
        """Go on in a new file, and let the oldest go."""
        path = self.folder / f"{self._number + 1:08d}.log"
        old = self._file
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._number, self._end = self._number + 1, 0
        if old >= 0:
            os.close(old)
        self._write(_framed(EpochFrame(self.record, *head, self.began_ms, self.reason)))
        for stale in _paths(self.folder)[:-FILES_MAX]:
            stale.unlink()

    def _write(self, frame: bytes) -> None:
        """Write at the known end, so that what a full disk took half of is overwritten by the next."""
        if os.pwrite(self._file, frame, self._end) < len(frame):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._end += len(frame)

    def sync(self, statement: bytes | None = None) -> None:
        """Make what was appended survive a power cut, and replace the signed *statement* beside it.

        Raises:
            OSError: the disk refuses it.
        """
        try:
            os.fdatasync(self._file)
            if statement is not None:
                write_beside(self.folder / HEAD_NAME, statement)
            self.unsynced = ""
        except OSError as error:
            if not self.unsynced:
                log.error("the commit record can't be made safe on its disk: %s", error)
            self.unsynced = _words(error)
            raise

    def close(self) -> None:
        """Let the folder go; idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._lock.release()


def _words(error: OSError) -> str:
    """Return what is wrong, without saying where."""
    return error.strerror or type(error).__name__


def write_beside(path: Path, data: bytes) -> None:
    """Replace *path* by *data* as one step; a crash leaves the old or the new."""
    fresh = path.with_name(f".{path.name}.new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
    os.replace(fresh, path)


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.log") if path.stem.isdigit())


def _last(folder: Path) -> tuple[Path, int, RecordSeen] | None:
    """Return the newest file that has a beginning, where its last whole frame ends, and what it says."""
    for path in reversed(_paths(folder)):
        first: EpochFrame | None = None
        head, at = BEGINNING, 0
        for end, frame in _frames(path.read_bytes()):
            if isinstance(frame, EpochFrame):
                first = frame
                head = Head(frame.epoch, frame.entries, frame.head)
            else:
                head = Head(head.epoch, frame.entries, frame.head)
            at = end
        if first is not None:
            return path, at, RecordSeen(folder, first.record, head, first.began_ms, first.reason)
    return None


def own_record(folder: Path, *, now_ms: int) -> RecordFile:
    """Take the first record in *folder* that no other process writes; made if there is none.

    Raises:
        FolderTaken: other processes write `RECORDS_MAX` records there.
        OSError: the folder can't be written.
    """
    for number in range(RECORDS_MAX):
        with contextlib.suppress(FolderTaken):
            return RecordFile(folder / f"{number:02d}", now_ms=now_ms)
    raise FolderTaken(folder)


def other_records(own: RecordFile) -> list[RecordSeen]:
    """Return the other records beside *own*, of coordinators that share the data folder or did."""
    return [seen for seen in records_in(own.folder.parent) if seen.folder != own.folder]


def records_in(folder: Path) -> list[RecordSeen]:
    """Return all records in *folder*, at most `RECORDS_MAX`, as their files say now; none where there is no folder."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []
    return [found[2] for path in paths[:RECORDS_MAX] if (found := _last(path)) is not None]
