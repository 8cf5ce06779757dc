"""What is used without measure is stopped, by a word that names the limit, and the worker goes on.

Every bomb here is one that the machine survives even if no limit held. Each runs as root's worker, whom
RLIMIT_NPROC would not stop and whose programs are counted by control groups, and as an ordinary user's, counted by
looking; the marks say which are dear.
"""

import pytest

from comptoir.worker.sandbox.types import MIB, EndReason, SandboxLimits
from tests.worker.sandbox.conftest import Driver, living

FORKS = """
import os, sys, time
made = 0
try:
    for _ in range(300):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except OSError as error:
    print(made, error.errno, flush=True)
"""
FORK_STORM = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
THREADS = """
import threading, time
made = 0
try:
    for _ in range(300):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        made += 1
except RuntimeError:
    print(made, flush=True)
"""
MEMORY = """
held = []
for _ in range(30):
    held.append(bytearray(b"x") * (10 * 1024 * 1024))
print("all", flush=True)
"""
MEMORY_OF_MANY = """
import os, time
for _ in range(10):
    if os.fork() == 0:
        held = bytearray(b"x") * (25 * 1024 * 1024)
        time.sleep(30)
        os._exit(0)
time.sleep(30)
"""
SHARED_MEMORY = """
import mmap, time
held = mmap.mmap(-1, 300 * 1024 * 1024)
for start in range(0, len(held), 4096):
    held[start] = 1
time.sleep(30)
"""
DISK = """
import os, sys
for number in range(30):
    with open(f"{sys.argv[1]}/{number}", "wb") as file:
        file.write(os.urandom(1024) * (10 * 1024))
print("all", flush=True)
"""
DELETED = """
import os, time
held = []
for number in range(30):
    held.append(open(f"/work/{number}", "wb"))
    os.unlink(f"/work/{number}")
    held[-1].write(os.urandom(1024) * (10 * 1024))
    held[-1].flush()
time.sleep(30)
"""
HIDDEN = """
import os, time
os.mkdir("/work/hidden")
os.chdir("/work/hidden")
os.chmod("/work/hidden", 0)
os.chmod("/work/hidden", 0o300)
for number in range(30):
    with open(str(number), "wb") as file:
        file.write(os.urandom(1024) * (10 * 1024))
os.chmod("/work/hidden", 0)
time.sleep(30)
"""
MANY_FILES = """
import os
for number in range(10_000_000):
    os.close(os.open(f"/work/{number}", os.O_CREAT | os.O_WRONLY))
print("all", flush=True)
"""
MANY_LINKS = """
import os
open("/tmp/a", "w").close()
for number in range(10_000_000):
    os.link("/tmp/a", f"/tmp/{number}")
"""
DEEP = """
import os, time
for _ in range(3000):
    os.mkdir("d")
    os.chdir("d")
time.sleep(30)
"""
LONG_FILE = """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
open("/work/f", "wb").truncate(1 << 40)
"""
SPIN_OF_MANY = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        while True:
            pass
time.sleep(60)
"""

SMALL = {"wall_s": 40, "cpu_s": 30, "cores": 1, "memory_bytes": 64 * MIB, "disk_bytes": 32 * MIB, "disk_files": 500}


def limits(**changed: object) -> SandboxLimits:
    return SandboxLimits(**(SMALL | changed))  # type: ignore[arg-type]


# What is run, its limits where they matter, and the word for its end.
STOPPED: tuple[tuple[str, str, dict[str, object], EndReason], ...] = (
    ("memory of one process", MEMORY, {}, EndReason.MEMORY),
    ("memory of many", MEMORY_OF_MANY, {}, EndReason.MEMORY),
    ("shared memory", SHARED_MEMORY, {}, EndReason.MEMORY),
    ("disk", DISK, {"memory_bytes": 512 * MIB}, EndReason.DISK_BYTES),
    ("deleted files", DELETED, {"memory_bytes": 512 * MIB}, EndReason.DISK_BYTES),
    ("a hidden folder", HIDDEN, {"memory_bytes": 512 * MIB}, EndReason.DISK_BYTES),
    ("ten million files", MANY_FILES, {}, EndReason.DISK_FILES),
    ("ten million links", MANY_LINKS, {}, EndReason.DISK_FILES),
    ("folders in folders", DEEP, {"disk_files": 5000}, EndReason.DISK_FILES),
    ("one long file", LONG_FILE, {"file_bytes": 4 * MIB}, EndReason.FILE_BYTES),
    ("one processor's time", "while True: pass", {"cpu_s": 1}, EndReason.CPU),
    ("processor time of many", SPIN_OF_MANY, {"cpu_s": 1}, EndReason.CPU),
    ("sleep", "import time; time.sleep(60)", {"wall_s": 0.3}, EndReason.WALL),
)


@pytest.mark.proof
class TestStopped:
    @pytest.mark.parametrize(("script", "changed", "reason"), [row[1:] for row in STOPPED], ids=[r[0] for r in STOPPED])
    def test_by_the_limit_that_was_passed(
        self, script: str, changed: dict[str, object], reason: EndReason, driver: Driver
    ) -> None:
        outcome = driver.python(script, "/work", limits=limits(**changed))

        report = outcome.report
        if reason is EndReason.MEMORY and not driver.groups and report and report.reason is EndReason.EXITED:
            # One process alone is refused more by the kernel, and ends by itself.
            assert b"MemoryError" in outcome.err and report.exit_code == 1
        else:
            assert report is not None and report.reason is reason, (report, outcome.err, outcome.failed)
            assert report.exit_code is None
        assert b"all" not in outcome.out
        assert report.wall_s < 20 and outcome.left == []

    def test_disk_in_each_of_its_places(self, driver: Driver) -> None:
        for place in ("/tmp", "/home/user", "/dev/shm"):
            outcome = driver.python(DISK, place, limits=limits(memory_bytes=512 * MIB))

            assert outcome.report is not None and outcome.report.reason is EndReason.DISK_BYTES, place


@pytest.mark.proof
class TestForks:
    def test_a_fork_beyond_the_limit_fails(self, driver: Driver) -> None:
        """With the watchman's and the walls' own processes not counted, and no other run's."""
        outcome = driver.python(FORKS, limits=limits(processes=16, memory_bytes=512 * MIB))

        made, number = outcome.out.split()
        assert 10 <= int(made) <= 16 and int(number) == 11
        assert outcome.report is not None and outcome.report.wall_s < 20

    def test_threads_count(self, driver: Driver) -> None:
        outcome = driver.python(THREADS, limits=limits(processes=16, memory_bytes=512 * MIB))

        assert 10 <= int(outcome.out) <= 16

    def test_a_storm_ends_with_the_wall(self, driver: Driver) -> None:
        room = limits(processes=16, wall_s=1, cpu_s=20, memory_bytes=512 * MIB)
        outcome = driver.python(FORK_STORM, "storm-in-a-box", limits=room)

        assert outcome.report is not None and outcome.report.reason is EndReason.WALL
        assert outcome.report.wall_s < 15
        assert living("storm-in-a-box") == []

    def test_the_worker_goes_on(self, driver: Driver) -> None:
        assert driver.shell("echo still here").out == b"still here\n"


class TestCheap:
    """The same kinds in what takes some tenths of a second, for every run of the tests."""

    def test_a_fork_beyond_the_limit_fails(self, by_user: Driver) -> None:
        outcome = by_user.python(FORKS, limits=limits(processes=8, memory_bytes=512 * MIB))

        made, number = outcome.out.split()
        assert 3 <= int(made) <= 8 and int(number) == 11

    def test_memory_is_held(self, by_user: Driver) -> None:
        outcome = by_user.python(MEMORY_OF_MANY, limits=limits())

        assert outcome.report is not None and outcome.report.reason is EndReason.MEMORY
        assert outcome.report.memory_bytes_peak > 60 * MIB

    def test_files_are_counted(self, by_user: Driver) -> None:
        outcome = by_user.python(MANY_FILES, limits=limits(disk_files=100))

        assert outcome.report is not None and outcome.report.reason is EndReason.DISK_FILES
        assert outcome.left == []

    def test_a_file_that_is_too_long_is_named(self, by_user: Driver) -> None:
        outcome = by_user.shell("head -c 3000000 /dev/zero > /work/long", limits=limits(file_bytes=MIB))

        # The shell outlives its child, and says so by its code.
        assert outcome.report is not None and outcome.report.reason is EndReason.FILE_BYTES
        assert outcome.report.exit_code is None
