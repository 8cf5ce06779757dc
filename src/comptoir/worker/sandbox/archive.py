"""Unpacks an archive that a stranger sent: plain files and folders, below one folder, within bounds that were set.

Zip, tar and tar.gz. An archive that is anything else somewhere (a link, a device, a path that leads out, two entries of
one name, an entry that is encrypted or compressed in another way) is refused as a whole, and what was unpacked of it is
removed by whoever erases the folder. Memory stays below a few MiB, whatever the archive says of itself.
"""

import gzip
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from comptoir.worker.sandbox.usage import DEPTH_MAX

NAME_BYTES_MAX = 255
"""Longest name of one file or folder, as file systems have it."""
HEADER_BYTES_MAX = 1024 * 1024
"""Most that is read at once of what describes an entry: tar's long headers say their own length."""
_ENTRY_BYTES = 512
"""What an entry's description may take in a zip's directory, on average."""
_CHUNK_BYTES = 64 * 1024
_END = b"PK\x05\x06"
_END_BYTES = 22
_COMMENT_BYTES = 65535


class ArchiveLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive may unpack to."""

    bytes_max: int = 1024 * 1024 * 1024
    """Of all files together."""
    files_max: int = 10_000
    """Files and folders."""
    depth_max: int = DEPTH_MAX // 2
    """Folders within folders."""


class BadArchive(Exception):
    """The archive is refused; *why* is for its sender."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the archive {why}")
        self.why = why


class _Entry(msgspec.Struct):
    name: str
    folder: bool
    executable: bool
    content: BinaryIO | None


class _Forward:
    """The stream of a tar, which only goes forward, in pieces, and not past its bound.

    `tarfile` steps back by one byte before each header, at which a gzip stream would begin again from its start.
    """

    def __init__(self, inner: BinaryIO, bytes_max: int) -> None:
        self._inner = inner
        self._bytes_max = bytes_max
        self._read_bytes = 0
        self._last = b""
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        """Read *size* bytes, fewer at the end."""
        if not 0 <= size <= HEADER_BYTES_MAX:
            raise BadArchive("describes one of its entries in more than a mebibyte")
        if self._position == self._read_bytes - 1 and size == 1:
            self._position += 1
            return self._last
        while self._read_bytes < self._position and self._take(min(_CHUNK_BYTES, self._position - self._read_bytes)):
            continue
        read = self._take(size) if self._read_bytes == self._position else b""
        self._position += len(read)
        return read

    def _take(self, size: int) -> bytes:
        if self._read_bytes + size > self._bytes_max:
            raise BadArchive("unpacks to more bytes than agreed")
        read = self._inner.read(size)
        self._read_bytes += len(read)
        self._last = read[-1:] or self._last
        return read

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Have the next read begin at *position*, counted from the start."""
        self._position = position
        return position

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._position


def unpack(archive: BinaryIO, folder: Path, limits: ArchiveLimits) -> int:
    """Unpack *archive*, a file that can be sought in, below the existing, empty *folder*. Blocks; belongs in a thread.

    Files get mode 0600 or, where the archive says that they can be executed, 0700; folders 0700. Times and owners are
    not taken over.

    Returns:
        The bytes of all files.

    Raises:
        BadArchive: see above. What was unpacked so far is left in *folder*.
    """
    start = archive.read(4)
    archive.seek(0)
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if start[:2] == b"PK":
            return _write_all(_zip_entries(archive, limits), top, limits)
        return _write_all(_tar_entries(archive, start, limits), top, limits)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        gzip.BadGzipFile,
        EOFError,
        NotImplementedError,
        RuntimeError,
        struct.error,
        UnicodeError,
        ValueError,
        OverflowError,
    ) as error:
        # What the standard library raises over a broken archive; RecursionError (headers of headers) is a RuntimeError.
        raise BadArchive(f"is broken: {error}") from error
    finally:
        os.close(top)


def _write_all(entries: Iterator[_Entry], top: int, limits: ArchiveLimits) -> int:
    total, count = 0, 0
    made: set[tuple[str, ...]] = set()
    for entry in entries:
        count += 1
        if count > limits.files_max:
            raise BadArchive(f"holds more than {limits.files_max} files and folders")
        parts = _parts(entry.name, limits)
        if not parts:
            continue
        above = parts if entry.folder else parts[:-1]
        for depth in range(1, len(above) + 1):
            if above[:depth] not in made:
                _make_folder(above[:depth], top)
                made.add(above[:depth])
                count += 1
        if entry.content is not None:
            total += _write(entry, parts, top, limits.bytes_max - total)
    return total


def _parts(name: str, limits: ArchiveLimits) -> tuple[str, ...]:
    """Split a path into names, each of which is safe to make.

    Raises:
        BadArchive: it leads out, or is none that a file can have.
    """
    if name.startswith("/") or "\\" in name or "\0" in name:
        raise BadArchive(f"has an entry of the name {name!r}")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise BadArchive(f"leads out of its folder: {name!r}")
    if len(parts) > limits.depth_max:
        raise BadArchive(f"has folders within folders deeper than {limits.depth_max}")
    if any(len(os.fsencode(part)) > NAME_BYTES_MAX for part in parts):
        raise BadArchive(f"has a name longer than {NAME_BYTES_MAX} bytes")
    return parts


def _make_folder(parts: tuple[str, ...], top: int) -> None:
    try:
        os.mkdir("/".join(parts), 0o700, dir_fd=top)
    except FileExistsError as error:
        raise BadArchive(f"has a file and a folder of one name: {'/'.join(parts)!r}") from error


def _write(entry: _Entry, parts: tuple[str, ...], top: int, left_bytes: int) -> int:
    """Write one file, which may take *left_bytes*; only we write below *top*, and we made no link there."""
    mode = 0o700 if entry.executable else 0o600
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open("/".join(parts), flags, mode, dir_fd=top)
    except FileExistsError as error:
        raise BadArchive(f"has two entries of one name: {entry.name!r}") from error
    written, content = 0, cast(BinaryIO, entry.content)
    with os.fdopen(descriptor, "wb") as file:
        while piece := content.read(_CHUNK_BYTES):
            written += len(piece)
            if written > left_bytes:
                raise BadArchive("unpacks to more bytes than agreed")
            file.write(piece)
    return written


def _tar_entries(archive: BinaryIO, start: bytes, limits: ArchiveLimits) -> Iterator[_Entry]:
    plain = cast(BinaryIO, gzip.GzipFile(fileobj=archive)) if start[:2] == b"\x1f\x8b" else archive
    # Beside what is in files, a header of 512 bytes an entry, padding to 512, and long names.
    forward = _Forward(plain, limits.bytes_max + limits.files_max * 2048 + HEADER_BYTES_MAX)
    with tarfile.open(fileobj=cast(BinaryIO, forward), mode="r:") as tar:
        while (member := tar.next()) is not None:
            # Members seen are kept in a list, for a look-up by name that nobody asks for.
            cast(Any, tar).members.clear()
            if not (member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)) or member.sparse is not None:
                raise BadArchive(f"has something else than files and folders: {member.name!r}")
            content = None if member.isdir() else cast(BinaryIO, tar.extractfile(member))
            yield _Entry(member.name, member.isdir(), bool(member.mode & 0o100), content)


def _zip_entries(archive: BinaryIO, limits: ArchiveLimits) -> Iterator[_Entry]:
    _check_directory(archive, limits)
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            kind = info.external_attr >> 16 & 0o170000
            if kind not in (0, 0o100000, 0o040000):
                raise BadArchive(f"has something else than files and folders: {info.filename!r}")
            if info.flag_bits & 1:
                raise BadArchive(f"has an encrypted entry: {info.filename!r}")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BadArchive(f"has an entry that is neither stored nor deflated: {info.filename!r}")
            if info.is_dir():
                yield _Entry(info.filename, True, False, None)
                continue
            with packed.open(info) as content:
                yield _Entry(info.filename, False, bool(info.external_attr >> 16 & 0o100), cast(BinaryIO, content))


def _check_directory(archive: BinaryIO, limits: ArchiveLimits) -> None:
    """Refuse a zip whose directory, which is read as a whole, is larger than its entries can need."""
    size = archive.seek(0, os.SEEK_END)
    archive.seek(max(0, size - _END_BYTES - _COMMENT_BYTES))
    tail = archive.read()
    found = tail.rfind(_END)
    if found < 0 or found + _END_BYTES > len(tail):
        raise BadArchive("is broken: it has no end")
    directory_bytes = struct.unpack_from("<I", tail, found + 12)[0]
    if directory_bytes == 0xFFFFFFFF or b"PK\x06\x06" in tail[:found][-76:]:
        raise BadArchive("is a zip of the 64-bit kind, which is for more than 4 GiB or 65,535 entries")
    if directory_bytes > limits.files_max * _ENTRY_BYTES:
        raise BadArchive(f"holds more than {limits.files_max} files and folders")
    archive.seek(0)
