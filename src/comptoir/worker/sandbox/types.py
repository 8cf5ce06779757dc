"""What a run of a stranger's program is given, and what it is said to have used."""

from collections.abc import Awaitable, Callable
from enum import StrEnum

import msgspec

MIB = 1024 * 1024
GIB = 1024 * MIB

Sink = Callable[[bytes], Awaitable[None]]
"""Takes one piece of output, at most 64 KiB. While it waits, the program waits too."""


class SandboxLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one run may use. Every limit is of the run as a whole unless it says otherwise, and each is in force."""

    wall_s: float = 600.0
    """Seconds from start to end."""
    cpu_s: float = 600.0
    """Seconds of processor time of all processes together."""
    cores: int = 1
    """Processors that it runs on; never more than the machine has."""
    memory_bytes: int = GIB
    """Resident memory of all processes together; with control groups also the kernel's on their behalf."""
    processes: int = 64
    """Processes and threads at one time."""
    open_files: int = 1024
    """Descriptors per process."""
    file_bytes: int = GIB
    """Length of one file."""
    disk_bytes: int = 2 * GIB
    """Bytes on the disk in the work folder, the home and ``/tmp`` together, deleted but open files included."""
    disk_files: int = 10_000
    """Files and folders in them."""
    output_bytes: int = 16 * MIB
    """Standard output and standard error together."""
    channel_bytes: int = 16 * MIB
    """What is written to the channel, descriptor 3."""
    network_bytes: int = GIB
    """Sent and received, where the owner allows a network."""


class Bound(msgspec.Struct, frozen=True):
    """A file or folder of the host that the program sees, read-only, at another path."""

    source: str
    """Absolute path on the host, existing, and nothing that a job may write."""
    target: str
    """Absolute path inside."""


class EndReason(StrEnum):
    """Why a run ended. Everything but EXITED was our doing, and names the limit."""

    EXITED = "exited"
    """By itself, or by a signal of its own."""
    STOPPED = "stopped"
    """Because the worker asked."""
    WALL = "wall"
    CPU = "cpu"
    MEMORY = "memory"
    PROCESSES = "processes"
    """Only where the kernel can't refuse one more: elsewhere the fork fails, and the program goes on."""
    FILE_BYTES = "file_bytes"
    """One file grew too long."""
    DISK_BYTES = "disk_bytes"
    DISK_FILES = "disk_files"
    """Too many files and folders, or folders in folders."""
    OUTPUT = "output"
    """Too much output, or too much on the channel; what came before is kept."""


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended and what it used. Every process of it was dead before this was made."""

    reason: EndReason
    exit_code: int | None
    """As a shell says it (128 and the signal's number); None unless it EXITED."""
    wall_s: float
    cpu_s: float
    """Of all processes. Without control groups, those that hide from their parents are missed; see docs/sandbox.md."""
    memory_bytes_peak: int
    """With control groups it includes cached pages of files."""
    output_bytes: int
    """Delivered, of both outputs."""


class SandboxMissing(Exception):
    """This machine can't hold a stranger's program, and none is run."""

    def __init__(self, why: str, todo: str) -> None:
        super().__init__(f"there is no sandbox here: {why}")
        self.why = why
        self.todo = todo
        """What the owner can do, in one sentence."""


class SandboxFailed(Exception):
    """One run could not be started; the program never ran."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the sandbox could not be set up: {why}")
        self.why = why
