"""One process per folder: an advisory lock on a file in it, released by the kernel when the process ends."""

import fcntl
import os
from pathlib import Path


class FolderTaken(Exception):
    """Another process holds the folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"another process uses {folder}; stop it first, or take another folder")
        self.folder = folder


class FolderLock:
    """Holds *folder* from `take` to `release`; what the holder before wrote into the lock can be read meanwhile."""

    def __init__(self, folder: Path, *, name: str) -> None:
        self._folder = folder
        self._path = folder / name
        self._file = -1

    def take(self) -> bytes:
        """Take the folder; return what the last holder noted, empty when there was none: it is surely gone.

        Raises:
            FolderTaken: another process holds it.
        """
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise FolderTaken(self._folder) from None
        self._file = file
        return os.pread(file, 4096, 0)

    def note(self, data: bytes) -> None:
        """Leave *data* (at most 4 KiB) for the next holder."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, data, 0)

    def release(self) -> None:
        """Let the folder go; idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
