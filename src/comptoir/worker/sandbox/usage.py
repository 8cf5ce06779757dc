"""What a run uses, found by looking: its processes in ``/proc``, its files in its folder."""

import contextlib
import os
import stat
from pathlib import Path

import msgspec

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_BLOCK_BYTES = 512
PROCESSES_SEEN_MAX = 4096
"""Processes looked at in one turn; a run has far fewer."""
DEPTH_MAX = 64
"""Folders within folders in a run's folder."""


class TreeUsage(msgspec.Struct, frozen=True):
    """What all processes below one use now, and have used."""

    pids: tuple[int, ...]
    tasks: int
    """Processes and threads."""
    memory_bytes: int
    """Resident; what processes share counts in each."""
    cpu_s: float


class FolderUsage(msgspec.Struct, frozen=True):
    """What a folder holds, or as much of it as was looked at until a limit was passed."""

    disk_bytes: int
    files: int
    too_deep: bool = False


def read_tree(top: int) -> TreeUsage:
    """Look at *top* and everything below it. Blocks for some 50 µs a process."""
    waiting, tasks, memory_bytes, ticks = [top], 0, 0, 0
    pids: list[int] = []
    while waiting and len(pids) < PROCESSES_SEEN_MAX:
        pid = waiting.pop()
        folder = f"/proc/{pid}"
        # A process that ends meanwhile is in its parent's count from then on.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in os.listdir(f"{folder}/task"):
                tasks += 1
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    waiting += [int(word) for word in Path(f"{folder}/task/{task}/children").read_text().split()]
            numbers = Path(f"{folder}/stat").read_bytes().rpartition(b") ")[2].split()
            # utime, stime and those of the children it waited for.
            ticks += sum(int(each) for each in numbers[11:15])
            memory_bytes += int(Path(f"{folder}/statm").read_text().split()[1]) * _PAGE_BYTES
            pids.append(pid)
    return TreeUsage(tuple(pids), tasks, memory_bytes, ticks / _TICKS_PER_S)


def shared_once(pids: tuple[int, ...]) -> int:
    """Return the resident memory of *pids*, with what they share counted once. Blocks longer than `read_tree`."""
    total_kib = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total_kib += int(line.split()[1])
    return total_kib * 1024


def read_folder(path: Path, *, bytes_max: int, files_max: int) -> FolderUsage:
    """Count what is below *path*, until it is more than allowed; links are counted, never followed.

    What the program made unreadable is made readable again, for its owner, so that nothing can be hidden from the
    count. Blocks for some 5 µs a file.
    """
    disk_bytes = files = 0
    descriptors = [os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    entries = [os.scandir(descriptors[0])]
    too_deep = False
    try:
        while entries and disk_bytes <= bytes_max and files <= files_max and not too_deep:
            entry = next(entries[-1], None)
            if entry is None:
                entries.pop().close()
                os.close(descriptors.pop())
                continue
            files += 1
            try:
                facts = entry.stat(follow_symlinks=False)
                disk_bytes += facts.st_blocks * _BLOCK_BYTES
                if not stat.S_ISDIR(facts.st_mode):
                    continue
                inner = open_folder(entry.name, descriptors[-1])
            except OSError:
                # It vanished, or became something else, while we looked.
                continue
            descriptors.append(inner)
            entries.append(os.scandir(inner))
            too_deep = len(entries) > DEPTH_MAX
    finally:
        for each in entries:
            each.close()
        for descriptor in descriptors:
            os.close(descriptor)
    return FolderUsage(disk_bytes, files, too_deep)


def open_folder(name: str, beside: int) -> int:
    """Open a folder below the open folder *beside*, never through a link, and however its mode was set.

    Raises:
        OSError: it is gone, no folder, or not ours.
    """
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, os.O_RDONLY | flags, dir_fd=beside)
    except PermissionError:
        place = os.open(name, os.O_PATH | flags, dir_fd=beside)
        try:
            os.chmod(f"/proc/self/fd/{place}", 0o700)
            return os.open(name, os.O_RDONLY | flags, dir_fd=beside)
        finally:
            os.close(place)


def deleted_but_open(pids: tuple[int, ...], device: int) -> int:
    """Return the bytes on disk of files on *device* that have no name any more and that *pids* hold open."""
    sizes: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    facts = os.stat(f"/proc/{pid}/fd/{number}")
                    if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 0 and facts.st_dev == device:
                        sizes[facts.st_ino] = facts.st_blocks * _BLOCK_BYTES
    return sum(sizes.values())
