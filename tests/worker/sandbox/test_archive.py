"""Archives of strangers: unpacked within bounds, or refused."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from comptoir.worker.sandbox.archive import ArchiveLimits, BadArchive, unpack

LIMITS = ArchiveLimits(bytes_max=1_000_000, files_max=20, depth_max=4)


def zip_of(*entries: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as packed:
        for name, content in entries:
            packed.writestr(name, content)
    return made.getvalue()


def zip_info(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def tar_of(*entries: tuple[tarfile.TarInfo, bytes], packed: bool = False) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz" if packed else "w:") as tar:
        for info, content in entries:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def tar_info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def encrypted() -> bytes:
    made = bytearray(zip_of(("a", b"x")))
    made[6] |= 1
    made[made.index(b"PK\x01\x02") + 8] |= 1
    return bytes(made)


def header_of_headers() -> bytes:
    """A tar whose long name says that it is 3 GB long, behind gzip: read at once, it would be in memory."""
    info = tar_info("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    info.size = 3 * 1024**3
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def many_headers() -> bytes:
    """A tar with 3,000 long names in a row, each read by a call within the call before."""
    info = tar_info("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    info.size = 5
    return (info.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(512, b"\0")) * 3000


def overlapping() -> bytes:
    """A zip with one deflated file that its directory names twenty times: it would unpack to twenty times as much."""
    made = zip_of(("a", bytes(400_000)))
    begin, end = made.index(b"PK\x01\x02"), made.index(b"PK\x05\x06")
    directory = made[begin:end] * 20
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 20, 20, len(directory), begin, 0)
    return made[:begin] + directory + tail


def large_directory() -> bytes:
    made = bytearray(zip_of(("a", b"x")))
    struct.pack_into("<I", made, made.index(b"PK\x05\x06") + 12, 500_000_000)
    return bytes(made)


REFUSED: tuple[tuple[str, Callable[[], bytes], str], ...] = (
    ("a zip bomb", lambda: zip_of(("zeros", bytes(1_000_001))), "more bytes than agreed"),
    ("two files that are a bomb together", lambda: zip_of(("a", bytes(600_000)), ("b", bytes(600_000))), "more bytes"),
    ("a gzip bomb", lambda: tar_of((tar_info("zeros"), bytes(1_100_000)), packed=True), "more bytes than agreed"),
    ("one entry named again and again", overlapping, "two entries of one name"),
    ("too many files", lambda: zip_of(*((str(number), b"") for number in range(21))), "more than 20"),
    ("too many folders", lambda: zip_of(*((f"{n}/{n}/{n}/f", b"") for n in range(7))), "more than 20"),
    ("too many in a tar", lambda: tar_of(*((tar_info(str(n)), b"") for n in range(21))), "more than 20"),
    ("a directory larger than its entries", large_directory, "more than 20"),
    ("too deep", lambda: zip_of(("a/b/c/d/e", b"")), "deeper than 4"),
    ("a long name", lambda: zip_of(("é" * 128, b"")), "longer than 255 bytes"),
    ("out by dots", lambda: zip_of(("../x", b"")), "leads out"),
    ("out by dots within", lambda: tar_of((tar_info("a/../../x"), b"")), "leads out"),
    ("an absolute path", lambda: zip_of(("/etc/passwd", b"")), "entry of the name"),
    ("an absolute path in a tar", lambda: tar_of((tar_info("/etc/passwd"), b"")), "entry of the name"),
    ("a backslash", lambda: zip_of(("..\\x", b"")), "entry of the name"),
    ("a link in a zip", lambda: zip_of((zip_info("a", 0o120777), b"/etc/passwd")), "something else"),
    ("a pipe in a zip", lambda: zip_of((zip_info("a", 0o010644), b"")), "something else"),
    ("a link in a tar", lambda: tar_of((tar_info("a", tarfile.SYMTYPE, "/etc/passwd"), b"")), "something else"),
    ("a hard link", lambda: tar_of((tar_info("a", tarfile.LNKTYPE, "/etc/passwd"), b"")), "something else"),
    ("a device", lambda: tar_of((tar_info("a", tarfile.CHRTYPE), b"")), "something else"),
    ("a file in a file's place", lambda: zip_of(("a", b"1"), ("./a", b"2")), "two entries of one name"),
    ("a folder in a file's place", lambda: zip_of(("a", b"1"), ("a/b", b"2")), "a file and a folder"),
    ("an encrypted entry", encrypted, "encrypted"),
    ("lzma, whose memory its sender chooses", lambda: zip_of(("a", b"x"), compression=zipfile.ZIP_LZMA), "neither"),
    ("a header of 3 GB", header_of_headers, "more than a mebibyte"),
    ("headers of headers", many_headers, "broken"),
    ("half a zip", lambda: zip_of(("a", b"x" * 999))[:60], "no end"),
    ("half a tar.gz", lambda: tar_of((tar_info("a"), os.urandom(9999)), packed=True)[:5000], "broken"),
    ("no archive", lambda: b"hello", "broken"),
    ("nothing", lambda: b"", "broken"),
)


class TestUnpack:
    @pytest.mark.parametrize(("make", "why"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
    def test_what_is_refused(self, make: Callable[[], bytes], why: str, tmp_path: Path) -> None:
        """And nothing was written beside the folder, or beyond the bound."""
        folder = tmp_path / "in"
        folder.mkdir()

        with pytest.raises(BadArchive, match=why):
            unpack(io.BytesIO(make()), folder, LIMITS)

        assert [each.name for each in tmp_path.iterdir()] == ["in"]
        written = [each for each in folder.rglob("*") if each.is_file()]
        assert sum(each.stat().st_size for each in written) <= LIMITS.bytes_max and len(written) <= LIMITS.files_max

    @pytest.mark.parametrize("packed", [False, True], ids=["tar", "tar.gz"])
    def test_a_tar_is_unpacked(self, packed: bool, tmp_path: Path) -> None:
        """Files as long as a block, after which `tarfile` steps back, are read all the same."""
        full = os.urandom(512 * 300)
        made = tar_of(
            (tar_info("a", tarfile.DIRTYPE), b""),
            (tar_info("a/full"), full),
            (tar_info("a/run", mode=0o755), b"#!/bin/sh\n"),
            (tar_info("./" + "n" * 200), b"long"),
            packed=packed,
        )

        assert unpack(io.BytesIO(made), tmp_path, LIMITS) == len(full) + 14
        assert (tmp_path / "a/full").read_bytes() == full
        assert (tmp_path / "a/run").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "a/full").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / ("n" * 200)).read_bytes() == b"long"

    def test_a_zip_is_unpacked(self, tmp_path: Path) -> None:
        made = zip_of(("b/c/é.txt", b"text"), ("b/empty/", b""), (zip_info("run", 0o100755), b"#!"))

        assert unpack(io.BytesIO(made), tmp_path, LIMITS) == 6
        assert (tmp_path / "b/c/é.txt").read_bytes() == b"text"
        assert (tmp_path / "b/empty").is_dir()
        assert os.access(tmp_path / "run", os.X_OK)

    def test_a_gzip_stream_is_read_once(self, tmp_path: Path) -> None:
        """Stepping back by one byte had it begin again from its start before every header."""
        made = tar_of(*((tar_info(str(number)), bytes(512)) for number in range(15)), packed=True)
        read = 0

        class Counting(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                nonlocal read
                piece = super().read(size)
                read += len(piece)
                return piece

        unpack(Counting(made), tmp_path, LIMITS)

        assert read < 2 * len(made) + 64
