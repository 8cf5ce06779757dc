"""Temporary folders of the tests are in memory where there is room: a third of their CPU and half of their time went to
a disk that nobody reads again.

Whoever sets TMPDIR chooses for himself. So does a container, whose /dev/shm is small or runs no programs.
"""

import os
import shutil
import tempfile

MEMORY = "/dev/shm"

ROOM_BYTES = 4 * 1024**3
"""Far above what a run takes at one time, some 300 MB: what a test leaves goes with it, unless it failed."""


def has_room() -> bool:
    """Say whether there is a file system in memory that holds a run, programs that tests write included."""
    try:
        return shutil.disk_usage(MEMORY).free >= ROOM_BYTES and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
    except OSError:
        return False


def use_memory() -> None:
    """Have every temporary folder from now on, those of programs that are started too, in memory."""
    if "TMPDIR" not in os.environ and has_room():
        os.environ["TMPDIR"] = tempfile.tempdir = MEMORY
