"""Two gigabytes go up and come down, and the coordinator's memory hardly grows: nothing of a file is ever whole in
it."""

import hashlib
import http.client
import resource
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Program, Up

GIB, MIB = 1 << 30, 1 << 20
SIZE = 2 * GIB
GROWTH_MAX = 64 * MIB
BLOCK = bytes(range(256)) * 4096
"""A mebibyte that no run of zeros makes small."""


def resident(pid: int) -> int:
    """Return the resident memory of a process, bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


class Peak:
    """The most memory that a process had since this began, looked at a hundred times a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.before = self.most = resident(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self.most = max(self.most, resident(self._pid))

    def grown(self) -> int:
        """End, and return by how much."""
        self._over.set()
        self._thread.join()
        return self.most - self.before


def blocks() -> Iterator[bytes]:
    for number in range(SIZE // len(BLOCK)):
        yield number.to_bytes(8, "big") + BLOCK[8:]


@pytest.mark.proof
class TestMemory:
    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        """On a disk, where most temporary folders of tests are in memory."""
        with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
            yield Path(made)

    def test_two_gibibytes_go_up_and_come_down(self, folder: Path, programs: Callable[..., Program]) -> None:
        up = programs(Up, folder, "--set", f"file_bytes_max={SIZE}")
        assert isinstance(up, Up)
        known = up.ready().quickstart
        address = known.url.removeprefix("http://")
        headers = {"Authorization": f"Bearer {known.key}"}
        digest = hashlib.sha256()
        for block in blocks():
            digest.update(block)
        # What is loaded for the first file is no part of a large one.
        small = http.client.HTTPConnection(address)
        small.request("POST", "/house/files", body=b"small", headers=headers)
        assert small.getresponse().status == 201
        small.close()

        going_up = Peak(up.process.pid)
        client = http.client.HTTPConnection(address, timeout=300)
        client.request("POST", "/house/files", body=blocks(), headers={**headers, "Content-Length": str(SIZE)})
        made = client.getresponse()
        told = made.read().decode()
        grown_up = going_up.grown()
        assert made.status == 201, told
        assert digest.hexdigest() in told

        coming_down = Peak(up.process.pid)
        client.request("GET", "/house/files/" + told.partition('"id":"')[2].partition('"')[0], headers=headers)
        answer, read = client.getresponse(), hashlib.sha256()
        while block := answer.read(MIB):
            read.update(block)
        grown_down = coming_down.grown()
        client.close()

        assert read.digest() == digest.digest()
        print(f"grown by {grown_up / MIB:.1f} MiB going up, {grown_down / MIB:.1f} MiB coming down")
        assert grown_up <= GROWTH_MAX and grown_down <= GROWTH_MAX
