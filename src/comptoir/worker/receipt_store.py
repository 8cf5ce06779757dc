"""Receipts that coordinators sent with `Settled`, and the newest head of each: what a host can show when they lost it.

Kept as received, because a worker knows no key of its coordinator: who is handed a receipt checks its signature. In
folder ``receipts`` beside the state file: files of records, of which the newest grows and the oldest goes, and
``heads``, replaced as a whole. A record is in the kernel's hands when `ReceiptStore.add` returns, so kill -9 loses
none; a record that was half written when the machine went down is cut off at the next start.
"""

import contextlib
import hashlib
import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from comptoir.kit.clock import Clock
from comptoir.kit.ids import ID_BYTES
from comptoir.link import HEADS_MAX, ConfirmedHead, SignedReceipt

_log = logging.getLogger(__name__)

FILE_BYTES_MAX = 8 << 20
"""Size at which a file of receipts is followed by the next: some 3,500 receipts."""

FILE_RECEIPTS_MAX = 4_096
"""The same in receipts."""

FILES_MAX = 8
"""Files kept: at most 64 MiB of receipts, and 32,768 of them."""

KEPT_S = 30 * 24 * 3600
"""How long after its last receipt a file is kept: longer than anybody's backup should be old."""

COMPLAIN_EVERY_S = 60.0
"""How often the log says that receipts can't be written."""

HEAD_FILE_BYTES_MAX = 256 << 10
"""Largest file of heads that is read: `HEADS_MAX` of them."""

RECORD = struct.Struct(">II16s")
"""What stands before each receipt: its length, the CRC-32 of job id and receipt, the job's id."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SignedReceipt).decode
_decode_heads = msgspec.msgpack.Decoder(list[ConfirmedHead]).decode


class Place(NamedTuple):
    """Where a receipt is."""

    path: Path
    offset: int
    """Of the receipt itself, behind its `RECORD`."""
    size: int
    sha256: bytes
    """Hash of its payload."""


class ReceiptStore:
    """Receipts and heads in *folder*, which nobody else writes."""

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self._folder = folder
        self._clock = clock or Clock()
        self._file = -1
        self._number = 0
        self._size = 0
        self._count = 0
        self._heads: dict[bytes, ConfirmedHead] = {}
        self._complained_s = -float("inf")

    def open(self) -> None:
        """Go on where the last worker in this folder ended; if that is not possible nothing is kept, and the log says
        why."""
        with self._complaining():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._heads = {head.keeper: head for head in self._read_heads()}
            self._drop_old()
            paths = self._paths()
            self._begin(_number_of(paths[-1]) if paths else 1)

    def close(self) -> None:
        """Write nothing more; idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def add(self, job_id: bytes, receipt: SignedReceipt) -> None:
        """Keep *receipt* of the job *job_id* (16 bytes); a disk that refuses costs the receipt and nothing else."""
        if self._file < 0 or len(job_id) != ID_BYTES:
            return
        data = _encode(receipt)
        record = RECORD.pack(len(data), zlib.crc32(data, zlib.crc32(job_id)), job_id) + data
        with self._complaining():
            if self._size + len(record) > FILE_BYTES_MAX or self._count >= FILE_RECEIPTS_MAX:
                self.close()
                self._begin(self._number + 1)
                self._drop_old()
            self._write(record)

    def _write(self, record: bytes) -> None:
        written = os.write(self._file, record)
        if written < len(record):  # The disk is full: a record without its end would hide those after it.
            os.ftruncate(self._file, self._size)
            raise OSError(f"only {written} of {len(record)} bytes were written")
        self._size += written
        self._count += 1

    def note_head(self, head: ConfirmedHead) -> None:
        """Keep *head* in place of the one that its keeper sent before; beyond `HEADS_MAX` keepers the oldest goes."""
        self._heads.pop(head.keeper, None)
        self._heads[head.keeper] = head
        while len(self._heads) > HEADS_MAX:
            del self._heads[next(iter(self._heads))]
        with self._complaining():
            fresh = self._folder / "heads.new"
            fresh.write_bytes(_encode(list(self._heads.values())))
            os.replace(fresh, self._folder / "heads")

    @property
    def heads(self) -> list[bytes]:
        """The newest statement of each keeper."""
        return [head.statement for head in self._heads.values()]

    def places(self) -> dict[bytes, Place]:
        """Return where each receipt is, by job id, the newest first; may run in a thread beside `add`.

        Takes about 200 ms for as many as are kept.
        """
        found: dict[bytes, Place] = {}
        for path in reversed(self._paths()):
            for job_id, place in reversed([*_places(path)]):
                found.setdefault(job_id, place)
        return found

    @staticmethod
    def read(places: Iterable[Place]) -> Iterator[SignedReceipt]:
        """Give the receipts at *places*, but for those that have gone since; may run in a thread."""
        for place in places:
            try:
                with place.path.open("rb") as file:
                    file.seek(place.offset)
                    yield _decode(file.read(place.size))
            except (OSError, msgspec.DecodeError) as error:
                _log.info("a receipt is gone: %s", error)

    def _begin(self, number: int) -> None:
        """Append to file *number*, which may be there; what is broken at its end is cut off."""
        path = self._folder / f"{number:08d}.log"
        self._number, self._size, self._count = number, 0, 0
        for _, offset, size in _records(path.read_bytes() if path.exists() else b""):
            self._size, self._count = offset + size, self._count + 1
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, self._size)

    def _drop_old(self) -> None:
        paths = self._paths()
        too_many, oldest_s = len(paths) - FILES_MAX, self._clock.now_ms() / 1000 - KEPT_S
        for at, path in enumerate(paths):
            if at < too_many or path.stat().st_mtime < oldest_s:
                path.unlink()

    def _paths(self) -> list[Path]:
        """Return the files of receipts, the oldest first."""
        return sorted(path for path in self._folder.glob("*.log") if path.stem.isdecimal())

    def _read_heads(self) -> list[ConfirmedHead]:
        try:
            with (self._folder / "heads").open("rb") as file:
                return _decode_heads(file.read(HEAD_FILE_BYTES_MAX))[-HEADS_MAX:]
        except FileNotFoundError:
            return []
        except msgspec.DecodeError as error:
            _log.warning("the heads of coordinators in %s can't be read: %s", self._folder, error)
            return []

    @contextlib.contextmanager
    def _complaining(self) -> Iterator[None]:
        """Receipts are the coordinator's second copy: a disk that takes none must not cost a job."""
        try:
            yield
        except OSError as error:
            now_s = self._clock.monotonic_s()
            if now_s - self._complained_s >= COMPLAIN_EVERY_S:
                self._complained_s = now_s
                _log.warning("receipts can't be kept in %s: %s", self._folder, error)


def _number_of(path: Path) -> int:
    return int(path.stem)


def _places(path: Path) -> Iterator[tuple[bytes, Place]]:
    """Give job id and place of each receipt in a file, the oldest first."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        data = file.read()
        for job_id, at, size in _records(data):
            payload = _decode(memoryview(data)[at : at + size]).payload
            yield job_id, Place(path, at, size, hashlib.sha256(payload).digest())


def _records(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Give job id, offset and size of each receipt in the bytes of a file, up to the first record that is broken."""
    at = 0
    while at + RECORD.size <= len(data):
        size, checksum, job_id = RECORD.unpack_from(data, at)
        begin, at = at + RECORD.size, at + RECORD.size + size
        if at > len(data) or zlib.crc32(memoryview(data)[begin:at], zlib.crc32(job_id)) != checksum:
            return
        yield job_id, begin, size
