"""Files up and down over HTTP, beside a bare obstore that copies the same bytes in the same run: MB/s, and the ratio.

Usage: ``PYTHONPATH=src:. python -m bench.bench_files [MiB]``. One connection, a file of that size (256), in a folder;
both write to the same disk. The coordinator also hashes, syncs each part and counts it in the database.
"""

import asyncio
import http.client
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.store import LocalStore

from bench.bench_completions import COORDINATOR_CPU, child, cpu_s

MIB = 1 << 20
ROUNDS = 5
BLOCK_BYTES = 256 << 10
PART_BYTES = 4 * MIB
"""As large as the objects that the coordinator writes."""


def blocks(size: int) -> Iterator[bytes]:
    """Yield *size* bytes, a block at a time."""
    block = bytes(range(256)) * (BLOCK_BYTES // 256)
    for _ in range(size // BLOCK_BYTES):
        yield block


class Bare:
    """The same bytes through obstore alone, a part at a time, in this process."""

    def __init__(self, folder: Path, *, synced: bool = False) -> None:
        self._folder = folder
        self._store = LocalStore(folder, mkdir=True)
        self._parts = 0
        self._synced = synced

    def up(self, size: int) -> None:
        """Write them."""
        part = bytes(range(256)) * (PART_BYTES // 256)
        self._parts = size // PART_BYTES
        for number in range(self._parts):
            obstore.put(self._store, f"bare/{number}", part, use_multipart=False)
            if self._synced:
                opened = os.open(self._folder / "bare" / str(number), os.O_RDONLY)
                os.fsync(opened)
                os.close(opened)

    def down(self, size: int) -> None:
        """Read them."""
        for number in range(self._parts):
            for _ in obstore.get(self._store, f"bare/{number}").stream(min_chunk_size=BLOCK_BYTES):
                pass


class Served:
    """The same bytes through a coordinator."""

    def __init__(self, url: str, key: str) -> None:
        self._client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
        self._headers = {"Authorization": f"Bearer {key}"}
        self._id = ""

    def up(self, size: int) -> None:
        """Upload them as a new file."""
        if self._id:
            self._client.request("DELETE", f"/house/files/{self._id}", headers=self._headers)
            self._client.getresponse().read()
        self._client.request(
            "POST", "/house/files", body=blocks(size), headers={**self._headers, "Content-Length": str(size)}
        )
        answer = self._client.getresponse()
        told = answer.read().decode()
        assert answer.status == 201, told
        self._id = told.partition('"id":"')[2].partition('"')[0]

    def down(self, size: int) -> None:
        """Download it."""
        self._client.request("GET", f"/house/files/{self._id}", headers=self._headers)
        answer, read = self._client.getresponse(), 0
        buffer = bytearray(BLOCK_BYTES)
        while got := answer.readinto(buffer):
            read += got
        assert read == size


def rate(run: Callable[[int], None], size: int) -> float:
    """Return MB/s."""
    began = time.perf_counter()
    run(size)
    return size / 1e6 / (time.perf_counter() - began)


async def measure(size: int) -> None:
    """Print the rates, in alternating rounds."""
    with tempfile.TemporaryDirectory() as folder, child("coordinator", folder, cpu=COORDINATOR_CPU) as (pid, words):
        kinds = {
            "bare": Bare(Path(folder) / "bare"),
            "synced": Bare(Path(folder) / "synced", synced=True),
            "served": Served(words[0], words[1]),
        }
        found: dict[str, list[float]] = {}
        spent = dict.fromkeys(("up", "down"), 0.0)
        for number in range(ROUNDS + 1):
            for way in ("up", "down"):
                before = cpu_s(pid)
                rates = {who: rate(getattr(kind, way), size) for who, kind in kinds.items()}
                if number:  # The first round warms up.
                    spent[way] += cpu_s(pid) - before
                    for who, value in rates.items():
                        found.setdefault(f"{way} {who}", []).append(value)
        for way in ("up", "down"):
            bare_mbs, synced_mbs, served_mbs = (statistics.median(found[f"{way} {who}"]) for who in kinds)
            gigabytes = size * ROUNDS / 1e9
            print(
                f"{way}: {served_mbs:.0f} MB/s beside {bare_mbs:.0f} MB/s of obstore alone (ratio {bare_mbs / served_mbs:.1f}), "
                + (
                    f"{synced_mbs:.0f} MB/s if it syncs too (ratio {synced_mbs / served_mbs:.1f}), "
                    if way == "up"
                    else ""
                )
                + f"{spent[way] / gigabytes:.2f} s of the coordinator's CPU a gigabyte"
            )


if __name__ == "__main__":
    asyncio.run(measure((int(sys.argv[1]) if len(sys.argv) > 1 else 256) * MIB))
