"""Folders of one worker: made, erased whatever a program did to them, and cleared of what a killed worker left."""

import os
import stat
import time
from collections import deque
from pathlib import Path

from comptoir.kit.folderlock import FolderLock, FolderTaken
from comptoir.kit.ids import new_id, public
from comptoir.worker.sandbox.usage import open_folder

PARTS = ("work", "home", "tmp", "shm")
"""What a program may write, each at a place of its own."""
LOCK = "lock"
GATE_S = 60.0
"""How long to wait for another that opens a folder in the same place, and erases what it finds."""
GATE_LOOK_S = 0.02


class RunsFolder:
    """Where one worker keeps its runs, or the files of its jobs. No other uses it, and the next to open one in the same
    place clears it if this worker is killed."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.name = ""
        self.cleared: list[str] = []
        """Workers whose leftovers `open` found and removed, by name."""
        self._lock: FolderLock | None = None

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.base / self.name

    def open(self) -> None:
        """Take a folder, and erase those of workers that are gone. Blocks as long as erasing takes.

        Raises:
            OSError: it can't be made, or what is there not erased. FolderTaken: another did not get done in `GATE_S`.
        """
        self.base.mkdir(parents=True, exist_ok=True, mode=0o700)
        gate = FolderLock(self.base, name=LOCK)
        _wait_for(gate)
        try:
            for other in self._workers():
                left = FolderLock(other, name=LOCK)
                try:
                    left.take()
                except FolderTaken:
                    continue
                self.cleared.append(other.name)
                erase(other)
                left.release()
            self.name = public("worker", new_id())
            self.path.mkdir(mode=0o700)
            self._lock = FolderLock(self.path, name=LOCK)
            self._lock.take()
        finally:
            gate.release()

    def _workers(self) -> list[Path]:
        return [each for each in self.base.iterdir() if each.is_dir() and each.name.startswith("worker_")]

    def close(self) -> None:
        """Erase everything and let the folder go; idempotent."""
        if self._lock is not None:
            erase(self.path)
            self._lock.release()
            self._lock = None

    def new_run(self, number: int) -> Path:
        """Make the folder of a run, with its `PARTS`, for this user alone."""
        folder = self.path / str(number)
        folder.mkdir(mode=0o700)
        for part in (*PARTS, "root", "etc"):
            (folder / part).mkdir(mode=0o700 if part in PARTS else 0o755)
        return folder


def _wait_for(gate: FolderLock) -> None:
    until_s = time.monotonic() + GATE_S
    while True:
        try:
            gate.take()
            return
        except FolderTaken:
            if time.monotonic() >= until_s:
                raise
            time.sleep(GATE_LOOK_S)


def give_to(folder: Path, uid: int, gid: int) -> None:
    """Give everything below *folder* to a user; links are given, not followed."""
    os.chown(folder, uid, gid, follow_symlinks=False)
    for here, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(here) / name, uid, gid, follow_symlinks=False)


def erase(folder: Path) -> None:
    """Erase *folder* and all below it, however deep, many, or unreadable; idempotent. Blocks some 20 µs a file.

    Folders found within are first moved up beside each other, so that neither the stack nor a path grows with the
    depth. Links are removed, never followed.
    """
    try:
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _empty(top)
    finally:
        os.close(top)
    folder.rmdir()


def _empty(top: int) -> None:
    """Remove what is in *top*: files at once, and each folder once what was in it has been moved into *top*."""
    os.fchmod(top, 0o700)
    waiting: deque[str] = deque()
    waiting += [_moved(top, name, top) for name in _remove_files(top)]
    while waiting:
        name = waiting.popleft()
        inner = open_folder(name, top)
        try:
            os.fchmod(inner, 0o700)
            waiting += [_moved(inner, below, top) for below in _remove_files(inner)]
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=top)


def _moved(source: int, name: str, top: int) -> str:
    """Move a folder into *top* under a name that none there has."""
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        # To change what lies above it, a folder has to be writable itself.
        os.chmod(f"/proc/self/fd/{place}", 0o700)
    finally:
        os.close(place)
    fresh = f".erased-{os.urandom(12).hex()}"
    os.rename(name, fresh, src_dir_fd=source, dst_dir_fd=top)
    return fresh


def _remove_files(descriptor: int) -> list[str]:
    """Remove all but folders of an open folder, and return the names of those."""
    folders = []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            if stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode):
                folders.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=descriptor)
    return folders
