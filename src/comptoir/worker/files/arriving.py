"""A file on its way to the disk: hashed as it is written, bounded, and never the disk's last bytes."""

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import aiohttp

from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.programs import disk_error
from comptoir.worker.sandbox.process import FREE_BYTES_MIN

BLOCK_BYTES = 1024 * 1024
"""What is gathered before it is written and hashed, in a thread."""
READABLE = 0o644
"""Also a program that runs as a user of its own has to read its inputs; their folder is closed to all others."""


class Arriving:
    """One file that is written from its beginning, in as many connections as it takes."""

    def __init__(self, path: Path, *, bytes_max: int, too_long: Callable[[], EngineError]) -> None:
        """*too_long* makes the error for more than *bytes_max*."""
        self.path = path
        self.size = 0
        """Bytes written."""
        self._bytes_max = bytes_max
        self._too_long = too_long
        self._hash = hashlib.sha256()
        self._block = bytearray()
        self._file = -1

    @property
    def sha256(self) -> str:
        """Of what was written, in hexadecimal digits."""
        return self._hash.hexdigest()

    def open(self) -> None:
        """Make the file.

        Raises:
            EngineError: it can't be made.
        """
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            os.fchmod(self._file, READABLE)
        except OSError as error:
            raise disk_error(error) from error

    def close(self) -> None:
        """Close it; idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def restart(self) -> None:
        """Begin again from the first byte."""
        os.ftruncate(self._file, 0)
        self.size, self._hash = 0, hashlib.sha256()

    async def take(self, response: aiohttp.ClientResponse) -> None:
        """Write all that an answer brings; what came before a cut is kept.

        Raises:
            EngineError: it is too long, or the disk is full. aiohttp.ClientError, TimeoutError: the answer was cut.
        """
        try:
            async for piece in response.content.iter_any():
                self._block += piece
                if self.size + len(self._block) > self._bytes_max:
                    self._block.clear()
                    raise self._too_long()
                if len(self._block) >= BLOCK_BYTES:
                    await self._flush()
        finally:
            await self._flush()

    async def _flush(self) -> None:
        block, self._block = self._block, bytearray()
        if block:
            await asyncio.to_thread(self._write, block)

    def _write(self, block: bytearray) -> None:
        check_room(self.path.parent, len(block))
        left = memoryview(block)
        try:
            while left:
                left = left[os.pwrite(self._file, left, self.size + len(block) - len(left)) :]
        except OSError as error:
            raise disk_error(error) from error
        self._hash.update(block)
        self.size += len(block)


def check_room(folder: Path, size: int) -> None:
    """Do nothing if *size* bytes more fit on the disk of *folder*, with `FREE_BYTES_MIN` left.

    Raises:
        EngineError: they don't; it is nobody's fault.
    """
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize - size < FREE_BYTES_MIN:
        raise EngineError("disk_full", "this host has no room for the job's files", fault="capacity")
