"""A coordinator as a process of its own, under a clock that the killer moves:
``python -m tests.chaos.coordinator SETTINGS CLOCK``.

SETTINGS is a JSON file. CLOCK is one with the milliseconds to add to wall time: it is added in ``time.time_ns`` itself,
so that nothing in the process knows better. Monotonic time is never touched.
"""

import asyncio
import mmap
import struct
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from comptoir.app import serve
from comptoir.kit.logs import set_up
from comptoir.settings import Settings

OFFSET = struct.Struct("<q")
"""What a clock file holds."""


def write_clock(path: Path, offset_s: int) -> None:
    """Move the clock of the coordinator that reads *path*; a write of eight bytes is seen whole."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(OFFSET.pack(offset_s * 1000))


def move_clock(path: Path) -> None:
    """Have this process's wall clock go wrong by what *path* says, now and later."""
    with path.open("rb") as file:
        offset = mmap.mmap(file.fileno(), OFFSET.size, access=mmap.ACCESS_READ)
    true_ns = time.time_ns

    def moved_ns() -> int:
        (offset_ms,) = OFFSET.unpack_from(offset)
        return true_ns() + int(offset_ms) * 1_000_000

    time.time_ns = moved_ns
    time.time = lambda: moved_ns() / 1e9


def main(settings_path: str, clock_path: str) -> None:
    """Serve until a signal."""
    settings = msgspec.json.decode(Path(settings_path).read_bytes(), type=Settings)
    set_up(level=settings.log_level, form=settings.log_format)
    move_clock(Path(clock_path))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


if __name__ == "__main__":
    main(*sys.argv[1:])
