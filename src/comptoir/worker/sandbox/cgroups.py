"""Control groups, versions 1 and 2: the kernel's own count and limit of memory, processes and processor time of a run.

One group per run, below the worker's own or, on version 2, below the nearest folder above it that hands these
controllers down and may be written. Where there is none (an ordinary user without delegation), the worker counts by
looking (`usage.py`), which is slower to notice; docs/sandbox.md says what that means.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

PREFIX = "comptoir-"
PROCESS_FILE = "cgroup.procs"
EMPTY_WITHIN_S = 5.0
"""How long killed processes may take to leave their group."""
_RECHECK_S = 0.002


class GroupUsage(msgspec.Struct, frozen=True):
    """What the processes of a group used so far."""

    memory_bytes: int
    """Now, without what is merely cached of files."""
    memory_bytes_peak: int
    cpu_s: float
    out_of_memory: bool
    """Whether the kernel killed one of them for memory."""


class GroupParent(msgspec.Struct, frozen=True):
    """A place where groups may be made."""

    version: int
    folders: dict[str, Path]
    """By controller. Version 2 has one folder, under ``memory``."""

    def make(self, name: str, *, memory_bytes: int, processes: int) -> "Group":
        """Make a group with limits.

        Raises:
            OSError: the kernel refuses; nothing is left behind.
        """
        made = Group(self.version, {which: folder / f"{PREFIX}{name}" for which, folder in self.folders.items()})
        try:
            for folder in made.folders.values():
                folder.mkdir()
            for path, value, needed in made.limits(memory_bytes=memory_bytes, processes=processes):
                if needed or path.exists():
                    path.write_text(value)
        except OSError:
            made.remove()
            raise
        return made

    def left_of(self, instance: str) -> list["Group"]:
        """Return the groups of a worker that is gone."""
        names = {each.name for folder in self.folders.values() for each in folder.glob(f"{PREFIX}{instance}-*")}
        return [Group(self.version, {which: folder / name for which, folder in self.folders.items()}) for name in names]


class Group(msgspec.Struct, frozen=True):
    """The group of one run."""

    version: int
    folders: dict[str, Path]

    def limits(self, *, memory_bytes: int, processes: int) -> Iterator[tuple[Path, str, bool]]:
        """Give each file to write, its value, and whether the limit depends on it; version 1 has its order."""
        if self.version == 2:
            folder = self.folders["memory"]
            yield folder / "memory.max", str(memory_bytes), True
            yield folder / "memory.swap.max", "0", False
            yield folder / "memory.oom.group", "1", False
            yield folder / "pids.max", str(processes), True
            return
        yield self.folders["memory"] / "memory.limit_in_bytes", str(memory_bytes), True
        yield self.folders["memory"] / "memory.memsw.limit_in_bytes", str(memory_bytes), False
        if "pids" in self.folders:
            yield self.folders["pids"] / "pids.max", str(processes), True

    def add(self, pid: int) -> None:
        """Put a process into it; its children are born there.

        Raises:
            OSError: the kernel refuses.
        """
        for folder in self.folders.values():
            (folder / PROCESS_FILE).write_text(str(pid))

    def usage(self) -> GroupUsage:
        """Read what was used so far."""
        folder = self.folders["memory"]
        if self.version == 2:
            now, facts = _number(folder / "memory.current"), _facts(folder / "memory.stat")
            cached = facts.get("file", 0) - facts.get("shmem", 0)
            cpu_s = _facts(folder / "cpu.stat").get("usage_usec", 0) / 1e6
            killed = _facts(folder / "memory.events").get("oom_kill", 0)
            peak = _number(folder / "memory.peak") or now
        else:
            now, facts = _number(folder / "memory.usage_in_bytes"), _facts(folder / "memory.stat")
            cached = facts.get("cache", 0) - facts.get("shmem", 0)
            counted = self.folders.get("cpuacct")
            cpu_s = _number(counted / "cpuacct.usage") / 1e9 if counted else 0.0
            killed = _facts(folder / "memory.oom_control").get("oom_kill", 0)
            peak = _number(folder / "memory.max_usage_in_bytes")
        return GroupUsage(max(0, now - cached), peak, cpu_s, killed > 0)

    def pids(self) -> set[int]:
        """Return the processes in it."""
        found: set[int] = set()
        for folder in self.folders.values():
            with contextlib.suppress(FileNotFoundError):
                found |= {int(word) for word in (folder / PROCESS_FILE).read_text().split()}
        return found

    def kill(self) -> None:
        """Kill every process in it and wait until none is left; blocks for at most `EMPTY_WITHIN_S`.

        Raises:
            TimeoutError: some don't die, which only a fault of the kernel or a device can bring about.
        """
        until = time.monotonic() + EMPTY_WITHIN_S
        while pids := self.pids():
            if time.monotonic() > until:
                raise TimeoutError(f"processes {sorted(pids)} don't die")
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_RECHECK_S)

    def remove(self) -> None:
        """Remove it, empty as it is; idempotent."""
        until = time.monotonic() + EMPTY_WITHIN_S
        for folder in self.folders.values():
            while True:
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    # The last process is dead, and the kernel has not yet taken it off the list.
                    if time.monotonic() > until:
                        raise
                    time.sleep(_RECHECK_S)
                else:
                    break


def find_parent(*, own: str | None = None, mounts: str | None = None) -> GroupParent | None:
    """Find where this process may make groups that count memory; None: nowhere.

    Args:
        own: content of ``/proc/self/cgroup``. mounts: of ``/proc/self/mountinfo``.
    """
    try:
        own = Path("/proc/self/cgroup").read_text() if own is None else own
        mounts = Path("/proc/self/mountinfo").read_text() if mounts is None else mounts
    except FileNotFoundError:
        return None
    paths: dict[str, str] = {}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    hierarchies: dict[str, Path] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            hierarchies[""] = Path(before.split(" ")[4])
        elif kind == "cgroup":
            hierarchies |= {word: Path(before.split(" ")[4]) for word in options.split(",")}
    return _second(hierarchies, paths) or _first(hierarchies, paths)


def _second(hierarchies: dict[str, Path], paths: dict[str, str]) -> GroupParent | None:
    mount = hierarchies.get("")
    if mount is None or "" not in paths:
        return None
    here = mount / paths[""].lstrip("/")
    for folder in (here, *here.parents):
        handed = folder / "cgroup.subtree_control"
        if handed.exists() and {"memory", "pids"} <= set(handed.read_text().split()) and os.access(folder, os.W_OK):
            return GroupParent(2, {"memory": folder})
        if folder == mount:
            return None
    return None


def _first(hierarchies: dict[str, Path], paths: dict[str, str]) -> GroupParent | None:
    folders: dict[str, Path] = {}
    for controller in ("memory", "pids", "cpuacct"):
        if controller in hierarchies and controller in paths:
            folder = hierarchies[controller] / paths[controller].lstrip("/")
            # In a container, the mount may show only its own part.
            folder = folder if folder.exists() else hierarchies[controller]
            if os.access(folder, os.W_OK):
                folders[controller] = folder
    return GroupParent(1, folders) if "memory" in folders else None


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return 0


def _facts(path: Path) -> dict[str, int]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
