"""Tries, from inside, every way out that it can think of, and prints what became of each: "ok", or the error's name.

Runs inside the sandbox: standard library only. Its one argument is JSON: a listening port, an abstract socket, a file
and a process of the host, an input.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import resource
import signal
import socket
import struct
import sys

GIVEN = json.loads(sys.argv[1])
LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = {
    "x86_64": {"ptrace": 101, "unshare": 272, "mount": 165, "bpf": 321, "perf_event_open": 298, "keyctl": 250,
               "io_uring_setup": 425, "userfaultfd": 323, "process_vm_readv": 310, "clone3": 435, "open_tree": 428,
               "kexec_load": 246, "setns": 308, "chroot": 161, "clone": 56, "personality": 135},
    "aarch64": {"ptrace": 117, "unshare": 97, "mount": 40, "bpf": 280, "perf_event_open": 241, "keyctl": 219,
                "io_uring_setup": 425, "userfaultfd": 282, "process_vm_readv": 270, "clone3": 435, "open_tree": 428,
                "kexec_load": 104, "setns": 268, "chroot": 51, "clone": 220, "personality": 92},
}[platform.machine()]  # fmt: skip
SAID = {}


def attempt(name, work):
    try:
        value = work()
        SAID[name] = "ok" if value is None else value
    except OSError as error:
        SAID[name] = errno.errorcode.get(error.errno, str(error))
    except ValueError as error:
        SAID[name] = str(error)


def syscall(name, *arguments):
    ctypes.set_errno(0)
    if LIBC.syscall(NUMBERS[name], *arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def read(path):
    with open(path, "rb") as file:
        file.read(64)


def write(path):
    with open(path, "ab") as file:
        file.write(b"x")


def read_through_link():
    os.symlink(GIVEN["secret_file"], "/work/link")
    read("/work/link")


def connect(family, kind, address):
    with socket.socket(family, kind) as made:
        made.settimeout(2)
        made.connect(address)
        if kind == socket.SOCK_DGRAM:
            made.send(b"x")


def in_child(work):
    """Return how a child ended that did *work*."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except OSError as error:
            os._exit(error.errno % 256)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def environments():
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    found.append(file.read().decode(errors="replace"))
            except OSError:
                continue
    return found


def status(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.split(":\t") for line in file.read().splitlines() if ":\t" in line)


def interfaces():
    with open("/proc/net/dev") as file:
        return [line.split(":")[0].strip() for line in file.readlines()[2:]]


def memory_of(pid):
    with open(f"/proc/{pid}/maps") as file:
        start = int(file.readline().split("-")[0], 16)
    with open(f"/proc/{pid}/mem", "rb") as file:
        file.seek(start)
        file.read(8)


attempt("read shadow", lambda: read("/etc/shadow"))
attempt("read a file of the host", lambda: read(GIVEN["secret_file"]))
attempt("read it through a link", read_through_link)
attempt("read it through the first process", lambda: read("/proc/1/root" + GIVEN["secret_file"]))
attempt("read the kernel's log", lambda: read("/dev/kmsg"))
attempt("read memory", lambda: read("/dev/mem"))
attempt("read the kernel's memory", lambda: read("/proc/kcore"))
attempt("read the disk", lambda: read("/dev/vda"))
attempt("look into /sys", lambda: os.listdir("/sys"))
attempt("write an input", lambda: write(GIVEN["input"]))
attempt("make an input writable", lambda: os.chmod(GIVEN["input"], 0o777))
attempt("remove an input", lambda: os.unlink(GIVEN["input"]))
attempt("link an input", lambda: os.link(GIVEN["input"], "/work/hard"))
attempt("link a program", lambda: os.link("/usr/bin/env", "/work/hard"))
for place in ("/x", "/usr/x", "/usr/bin/env", "/etc/x", "/etc/passwd", "/dev/x", "/proc/sys/kernel/core_pattern",
              "/proc/sysrq-trigger", "/proc/self/uid_map", "/home/x", "/python/x"):  # fmt: skip
    attempt(f"write {place}", lambda place=place: write(place))
for place in ("/work/x", "/tmp/x", "/home/user/x", "/dev/shm/x"):
    attempt(f"write {place}", lambda place=place: write(place))
attempt("make a device", lambda: os.mknod("/work/mem", 0o20666, os.makedev(1, 1)))
attempt("see a process of the host", lambda: os.kill(GIVEN["pid"], 0))
attempt("ptrace the first process", lambda: syscall("ptrace", 16, 1, 0, 0))
attempt("ptrace a child", lambda: syscall("ptrace", 0, 0, 0, 0))
attempt("read the first process's memory", lambda: memory_of(1))
attempt("read memory by a call", lambda: syscall("process_vm_readv", 1, 0, 0, 0, 0, 0))
attempt("setuid", lambda: os.setuid(0))
attempt("setgid", lambda: os.setgid(0))
attempt("setgroups", lambda: os.setgroups([0]))
attempt("new user namespace", lambda: syscall("unshare", 0x10000000))
attempt("new user namespace by clone", lambda: syscall("clone", 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0))
attempt("clone3", lambda: syscall("clone3", 0, 0))
attempt("enter a namespace", lambda: syscall("setns", 0, 0))
attempt("mount", lambda: syscall("mount", b"none", b"/tmp", b"tmpfs", 0, 0))
attempt("open a mount", lambda: syscall("open_tree", -100, b"/", 1))
attempt("chroot", lambda: syscall("chroot", b"/tmp"))
for name in ("bpf", "perf_event_open", "keyctl", "io_uring_setup", "userfaultfd", "kexec_load"):
    attempt(name, lambda name=name: syscall(name, 0, 0, 0, 0, 0))
attempt("type into a terminal", lambda: fcntl.ioctl(0, 0x5412, b"x"))
attempt("more processors", lambda: os.sched_setaffinity(0, range(64)))
attempt("more processes", lambda: resource.setrlimit(resource.RLIMIT_NPROC, (100_000, 100_000)))
attempt("higher priority", lambda: os.nice(-5) and None)
attempt("connect to the coordinator", lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", GIVEN["port"])))
attempt("connect to metadata", lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80)))
attempt("connect outside", lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("1.1.1.1", 443)))
attempt("send outside", lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, ("1.1.1.1", 53)))
attempt("connect outside by IPv6", lambda: connect(socket.AF_INET6, socket.SOCK_STREAM, ("2606:4700::1111", 443)))
attempt("abstract socket", lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + GIVEN["abstract"]))
attempt("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close())
attempt("packet socket", lambda: socket.socket(17, socket.SOCK_RAW, 0).close())
attempt("socket to the hypervisor", lambda: socket.socket(40, socket.SOCK_STREAM).close())
attempt("netlink", lambda: socket.socket(16, socket.SOCK_RAW, 0).close())
attempt("hidden memory", lambda: os.close(os.memfd_create("x")))
attempt("crash", lambda: in_child(crash))
attempt("fork", lambda: in_child(lambda: None))
attempt("map shared memory", lambda: mmap.mmap(-1, 4096).close())
SAID |= {
    "cores": len(os.sched_getaffinity(0)),
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
    "environment": sorted(os.environ),
    "environments": environments(),
    "interfaces": interfaces(),
    "ids": [os.getuid(), os.geteuid(), os.getgid(), os.getegid()],
    "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
    "root": sorted(os.listdir("/")),
    "status": status("self"),
    "first": status("1"),
    "work": sorted(os.listdir("/work")),
    "word": struct.calcsize("P"),
}
print(json.dumps(SAID))
