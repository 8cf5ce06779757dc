"""A program can't leave: all that it can try is tried, in each layer, with root's worker and an ordinary user's."""

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comptoir.worker.sandbox.types import Bound, SandboxLimits
from tests.worker.sandbox.conftest import Driver

ESCAPE = Path(__file__).with_name("escape.py").read_text()

GONE = {"ENOENT", "ESRCH"}
NO = {"EPERM", "EACCES", "EROFS"}
NOT_HERE = {"ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL"}

# What is tried, and how it may end.
ALLOWED: tuple[tuple[str, set[Any]], ...] = (
    ("read shadow", GONE | NO),
    ("read a file of the host", GONE),
    ("read it through a link", GONE),
    ("read it through the first process", GONE | NO),
    ("read the kernel's log", GONE),
    ("read memory", GONE),
    ("read the kernel's memory", GONE | NO),
    ("read the disk", GONE),
    ("look into /sys", GONE),
    ("write an input", NO),
    ("make an input writable", NO),
    ("remove an input", NO),
    ("link an input", NO | {"EXDEV"}),
    ("link a program", NO | {"EXDEV"}),
    ("write /x", NO),
    ("write /usr/x", NO),
    ("write /usr/bin/env", NO),
    ("write /etc/x", NO),
    ("write /etc/passwd", NO),
    ("write /dev/x", NO),
    ("write /proc/sys/kernel/core_pattern", NO),
    ("write /proc/sysrq-trigger", NO | GONE),
    ("write /proc/self/uid_map", NO | {"EINVAL"}),
    ("write /home/x", NO),
    ("write /python/x", NO),
    ("write /work/x", {"ok"}),
    ("write /tmp/x", {"ok"}),
    ("write /home/user/x", {"ok"}),
    ("write /dev/shm/x", {"ok"}),
    ("make a device", NO),
    ("see a process of the host", GONE),
    ("ptrace the first process", NO),
    ("ptrace a child", NO),
    # It is the walls' own, with no power and behind the same filter (`first`), and knows nothing.
    ("read the first process's memory", NO | {"ok"}),
    ("read memory by a call", NO),
    ("setuid", NO | {"EINVAL"}),
    ("setgid", NO | {"EINVAL"}),
    ("setgroups", NO | {"EINVAL"}),
    ("new user namespace", NO),
    ("new user namespace by clone", NO),
    ("clone3", {"ENOSYS"}),
    ("enter a namespace", NO),
    ("mount", NO),
    ("open a mount", NO),
    ("chroot", NO),
    ("bpf", NO),
    ("perf_event_open", NO),
    ("keyctl", NO),
    ("io_uring_setup", NO),
    ("userfaultfd", NO),
    ("kexec_load", NO),
    ("type into a terminal", NO),
    ("more processors", NO),
    ("more processes", NO | {"not allowed to raise maximum limit"}),
    ("higher priority", NO),
    ("connect to the coordinator", NOT_HERE),
    ("connect to metadata", NOT_HERE),
    ("connect outside", NOT_HERE),
    ("send outside", NOT_HERE),
    ("connect outside by IPv6", NOT_HERE),
    ("abstract socket", NOT_HERE),
    ("raw socket", NO),
    ("packet socket", {"EAFNOSUPPORT"}),
    ("socket to the hypervisor", {"EAFNOSUPPORT"}),
    ("netlink", {"EAFNOSUPPORT"}),
    ("crash", {-11}),
    ("fork", {0}),
    ("map shared memory", {"ok"}),
)


@pytest.fixture(scope="module")
def listening() -> Iterator[tuple[int, str, list[str]]]:
    """Give a port and an abstract socket of the host that listen, and who came."""
    came: list[str] = []
    name = f"comptoir-{os.getpid()}"
    web = socket.create_server(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0" + name)
    abstract.listen()

    def accept(server: socket.socket) -> None:
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                return
            came.append(str(server))

    threads = [threading.Thread(target=accept, args=(each,)) for each in (web, abstract)]
    for thread in threads:
        thread.start()
    yield web.getsockname()[1], name, came
    for server in (web, abstract):
        server.shutdown(socket.SHUT_RDWR)
        server.close()
    for thread in threads:
        thread.join()


@pytest.fixture(scope="module")
def tried(driver: Driver, listening: tuple[int, str, list[str]]) -> dict[str, Any]:
    """Give what became of everything that was tried, in one run."""
    secret = driver.folder / "secret"
    secret.write_text(driver.secret)
    secret.chmod(0o644)
    shown = driver.folder / "input.txt"
    shown.write_text("input")
    shown.chmod(0o666)
    given = {
        "port": listening[0],
        "abstract": listening[1],
        "secret_file": str(secret),
        "input": "/in/input.txt",
        "pid": driver.process.pid,
    }
    limits = SandboxLimits(wall_s=30, cores=1)
    outcome = driver.python(ESCAPE, json.dumps(given), inputs=[Bound(str(shown), "/in/input.txt")], limits=limits)

    assert outcome.report is not None and outcome.report.exit_code == 0, (outcome.failed, outcome.err.decode())
    assert shown.read_text() == "input" and shown.stat().st_mode & 0o777 == 0o666
    assert outcome.left == []
    return json.loads(outcome.out) | {"refused": outcome.refused}


class TestEscapes:
    def test_nothing_that_was_tried_led_out(self, tried: dict[str, Any], driver: Driver) -> None:
        wrong = {name: tried.get(name) for name, allowed in ALLOWED if tried.get(name) not in allowed}

        assert wrong == {}

    def test_nobody_came(self, tried: dict[str, Any], listening: tuple[int, str, list[str]]) -> None:
        assert tried["interfaces"] == ["lo"]
        assert listening[2] == []

    def test_it_sees_its_own_root_and_processes(self, tried: dict[str, Any]) -> None:
        usual = {"bin", "dev", "etc", "home", "in", "lib", "lib32", "lib64", "libx32", "proc", "python", "sbin"}

        assert set(tried["root"]) <= usual | {"tmp", "usr", "work"}
        assert tried["processes"] <= 3

    def test_it_is_nobody_with_no_power(self, tried: dict[str, Any], driver: Driver) -> None:
        """A program of root's worker runs as a user that is nobody else's."""
        status = tried["status"]

        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        assert tried["first"]["NoNewPrivs"] == "1" and tried["first"]["Seccomp"] == "2"
        assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
        assert (min(tried["ids"]) >= 1_900_000_000) == driver.root
        assert 0 not in tried["ids"]

    def test_it_has_no_environment_and_no_descriptor_of_the_workers(
        self, tried: dict[str, Any], driver: Driver
    ) -> None:
        known = {"HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "PWD", "TMPDIR", "USER", "LC_CTYPE"}

        assert set(tried["environment"]) <= known
        assert not any(driver.secret in each for each in tried["environments"])
        assert tried["descriptors"] == [0, 1, 2]

    def test_memory_that_nobody_counts_is_refused(self, tried: dict[str, Any], driver: Driver) -> None:
        assert tried["hidden memory"] == ("ok" if driver.groups else "EPERM")

    def test_a_crash_leaves_no_dump(self, tried: dict[str, Any]) -> None:
        assert tried["work"] == ["link", "x"]

    def test_it_runs_on_the_processors_that_were_agreed(self, tried: dict[str, Any]) -> None:
        assert tried["cores"] == 1

    def test_a_link_out_is_no_result(self, tried: dict[str, Any]) -> None:
        assert "link" in tried["refused"]


class TestSetuid:
    def test_a_program_with_roots_bit_stays_nobody(self, driver: Driver) -> None:
        program = driver.folder / "who"
        shutil.copy(os.path.realpath("/usr/bin/id"), program)
        program.chmod(0o4755)
        outcome = driver.run_bound(program, "/in/who", ["/in/who", "-u"])

        assert int(outcome.out) != 0


class TestDevices:
    def test_only_the_one_that_was_given_is_there(self, driver: Driver) -> None:
        """/dev/rtc0 or such stands for a GPU, of which this machine may have none."""
        given = next(path for path in ("/dev/net/tun", "/dev/fuse", "/dev/ptmx", "/dev/tty") if os.path.exists(path))
        outcome = driver.shell(r"find /dev -exec test -c {} \; -print", devices=[given])
        plain = {
            f"/dev/{name}"
            for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts/ptmx", "console")
        }

        assert given in outcome.out.decode().split()
        assert set(outcome.out.decode().split()) - plain <= {given}

    def test_a_file_is_no_device(self, driver: Driver) -> None:
        assert "no device" in driver.shell("true", devices=["/etc/passwd"]).failed
        assert "no device" in driver.shell("true", devices=["/dev/../etc/passwd"]).failed
