"""The program that starts a stranger's program inside the walls, and stays outside them as its watchman.

It is run by path, with no package of ours and nothing but the standard library, so that it starts in some 20 ms:
``python -I -S launch.py CONTROL PARENT HANDOVER CHANNEL``. It forks at once. The parent, the *watchman*, adopts
whatever the program leaves behind and ends when all of it is dead, so that its end is the proof; SIGTERM, or the end
of the worker, makes it kill everything. The child reads its orders as one line of JSON from *CONTROL* (by then the
worker has put it into its control groups), gives up what it can do, builds the walls and becomes the program.

Lines on *CONTROL*: from here ``{"pid"}`` of the child; to here the `Orders`; from here ``{"error"}`` when a wall could
not be built, and at the end ``{"code", "ran", "cpu_s", "rss_bytes"}``.
"""

import _socket
import array
import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import struct
import sys
import time
from typing import Any, NoReturn

Orders = dict[str, Any]
"""``layer``, ``argv``, ``env``, ``cwd``, ``uid``, ``gid``, ``groups``, ``stage``, ``root``, ``mounts`` ([how, source,
target]), ``links`` ([text, target]), ``rlimits``, ``cpus``, ``filter`` (hex), ``network``, ``bwrap``."""

CHANNEL = 3
"""The descriptor at which a program finds the channel of its own."""
PROXY_PORT = 3128
HIGH = 100
"""Our own descriptors are moved here and above, out of the program's way."""
DROPPED = 70
"""Exit code of a child that could not build the walls."""
RECHECK_S = 0.002
"""How long the watchman sleeps between two looks at what is still dying."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP = 1, 4, 22
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_AT_RECURSIVE, _AT_FDCWD = 0x8000, -100
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR, _CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 442, 444, 445, 446
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

_READ = 1 | 4 | 8
"""Landlock: execute, read file, read directory."""
_ALL_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_ALL = (1 << 16) - 1
_OF_FILES = 1 | 2 | 4 | 1 << 14 | 1 << 15
"""The rights that a rule about something that is no directory may name."""


def call(name: str, *arguments: object) -> int:
    """Call a function of the C library.

    Raises:
        OSError: it failed; the message names it.
    """
    result = int(getattr(_LIBC, name)(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str = "", *, flags: int = 0, options: str = "") -> None:
    """Mount *source* at *target*."""
    try:
        call("mount", source.encode(), target.encode(), kind.encode() or None, flags, options.encode() or None)
    except OSError as error:
        raise OSError(error.errno, f"mount {kind or source} at {target}: {os.strerror(error.errno or 0)}") from error


def set_attributes(target: str, attributes: int, *, below: bool) -> None:
    """Set attributes of the mount at *target*, and of those *below* it."""
    given = struct.pack("=QQQQ", attributes, 0, 0, 0)
    call("syscall", _MOUNT_SETATTR, _AT_FDCWD, target.encode(), _AT_RECURSIVE if below else 0, given, len(given))


def make_place(source: str, target: str) -> None:
    """Make what *source* is to be bound to: a folder for a folder, else a file."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))


def stage(orders: Orders) -> None:
    """Bind what lies in folders that the unprivileged user may not enter to where it may, in a mount namespace of ours.

    Only root can, and only root has to: everybody else runs the program under their own user.
    """
    call("unshare", _NEWNS)
    mount("none", "/", flags=_MS_REC | _MS_PRIVATE)
    wanted = [orders["root"], *(source for _, source, _ in orders["mounts"])]
    opened = [os.open(source, os.O_PATH | os.O_CLOEXEC) for source in wanted]
    mount("tmpfs", "/tmp", "tmpfs", flags=_MS_NOSUID | _MS_NODEV, options="mode=0755,size=1m")
    staged = []
    for number, descriptor in enumerate(opened):
        place = f"/tmp/{number}"
        make_place(f"/proc/self/fd/{descriptor}", place)
        mount(f"/proc/self/fd/{descriptor}", place, flags=_MS_BIND | _MS_REC)
        os.close(descriptor)
        staged.append(place)
    orders["root"] = staged[0]
    orders["mounts"] = [
        [how, place, target] for (how, _, target), place in zip(orders["mounts"], staged[1:], strict=True)
    ]


def become(orders: Orders, watchman: int) -> None:
    """Become the user that the program runs as, for good, and die with the watchman."""
    if os.geteuid() == 0:
        os.setgroups(orders["groups"])
        os.setresgid(orders["gid"], orders["gid"], orders["gid"])
        os.setresuid(orders["uid"], orders["uid"], orders["uid"])
        # Giving up root made /proc/self root's, and the maps of the namespace could not be written.
        call("prctl", _PR_SET_DUMPABLE, 1, 0, 0, 0)
    call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != watchman:
        os._exit(DROPPED)


def divide(orders: Orders, handover: int) -> None:
    """Leave the host's users, network, names and memory segments for namespaces of our own."""
    uid, gid = os.getuid(), os.getgid()
    own_mounts = _NEWNS | _NEWPID if orders["layer"] == "landlock" else 0
    call("unshare", _NEWUSER | _NEWNET | _NEWIPC | _NEWUTS | own_mounts)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        # No codec may have to be imported here: what Python lives in is out of reach already.
        with open(f"/proc/self/{name}", "wb") as file:
            file.write(text.encode())
    call("sethostname", b"sandbox", 7)
    plain = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    asked = fcntl.ioctl(plain.fileno(), _SIOCGIFFLAGS, struct.pack("16sh22x", b"lo", 0))
    flags = struct.unpack_from("16sh", asked)[1]
    fcntl.ioctl(plain.fileno(), _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))
    plain.close()
    if not orders["network"]:
        return
    # The only way out: a socket that listens in here and that the worker, outside, answers.
    door = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    door.bind(("127.0.0.1", PROXY_PORT))
    door.listen(64)
    way = _socket.socket(fileno=handover)
    way.sendmsg([b"d"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [door.fileno()]))])
    way.close()
    door.close()


def limit(orders: Orders) -> None:
    """Set what the kernel counts for a process or user, and the processors it may run on."""
    os.sched_setaffinity(0, orders["cpus"])
    for name, (soft, hard) in orders["rlimits"].items():
        kind = getattr(resource, name)
        most = resource.getrlimit(kind)[1]
        most = hard if most == resource.RLIM_INFINITY else min(hard, most)
        resource.setrlimit(kind, (min(soft, most), most))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        # Python ignores both, and what is ignored stays so over exec.
        signal.signal(number, signal.SIG_DFL)


def memory_file(content: bytes) -> int:
    """Return a descriptor, open over exec, from which *content* can be read."""
    made = os.memfd_create("orders", os.MFD_CLOEXEC)
    os.write(made, content)
    os.lseek(made, 0, os.SEEK_SET)
    kept = fcntl.fcntl(made, fcntl.F_DUPFD, HIGH)
    os.close(made)
    return kept


def wrap(orders: Orders, status: int) -> NoReturn:
    """Become bubblewrap, which builds the rest; no path of the host is on its command line, which the program sees."""
    words = ["--unshare-user", "--unshare-pid", "--die-with-parent", "--json-status-fd", str(status)]
    words += ["--seccomp", str(memory_file(bytes.fromhex(orders["filter"]))), "--proc", "/proc", "--dev", "/dev"]
    hows = {"ro": "--ro-bind", "rw": "--bind", "dev": "--dev-bind"}
    for how, source, target in orders["mounts"]:
        words += [hows[how], source, target]
    for text, target in orders["links"]:
        words += ["--symlink", text, target]
    words += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", orders["cwd"], "--clearenv"]
    for name, value in orders["env"].items():
        words += ["--setenv", name, value]
    given = memory_file(b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words))
    os.set_inheritable(status, True)
    os.execve(orders["bwrap"], ["bwrap", "--args", str(given), "--", *orders["argv"]], {})


def build_root(orders: Orders) -> None:
    """Make a root of our own from nothing but what *orders* name, and leave the host's behind."""
    root = orders["root"]
    mount("none", "/", flags=_MS_REC | _MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", flags=_MS_NOSUID | _MS_NODEV, options="mode=0755,size=1m")
    for name in ("dev", "proc"):
        os.mkdir(f"{root}/{name}")
    mount("proc", f"{root}/proc", "proc", flags=_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    devices = [("dev", f"/dev/{name}", f"/dev/{name}") for name in ("null", "zero", "full", "random", "urandom")]
    for how, source, target in [*devices, *orders["mounts"]]:
        place = root + target
        make_place(source, place)
        mount(source, place, flags=_MS_BIND | _MS_REC)
        attributes = _ATTR_NOSUID | (_ATTR_RDONLY if how == "ro" else 0) | (0 if how == "dev" else _ATTR_NODEV)
        set_attributes(place, attributes, below=True)
    given = [
        ("/proc/self/fd", "/dev/fd"),
        *((f"/proc/self/fd/{n}", f"/dev/{w}") for n, w in enumerate(("stdin", "stdout", "stderr"))),
    ]
    for text, target in [*given, *orders["links"]]:
        os.makedirs(os.path.dirname(root + target), exist_ok=True)
        os.symlink(text, root + target)
    os.chdir(root)
    call("syscall", _PIVOT_ROOT[os.uname().machine], b".", b".")
    call("umount2", b".", _MNT_DETACH)
    os.chdir("/")
    set_attributes("/", _ATTR_RDONLY, below=False)


def lock_files(orders: Orders) -> None:
    """Have Landlock allow what `build_root` put there, each in its way, and nothing else."""
    abi = call("syscall", _CREATE_RULESET, None, 0, 1)
    every = _ALL_BY_ABI.get(abi, _ALL)
    rules = [("/proc", _READ), ("/", 8)]
    rules += [(f"/dev/{name}", 2 | 4) for name in ("null", "zero", "full", "random", "urandom")]
    rights = {"ro": _READ, "rw": every, "dev": every & _OF_FILES}
    rules += [(target, rights[how]) for how, _, target in orders["mounts"]]
    rules += [(target, _READ) for _, target in orders["links"] if os.path.exists(target)]
    handled = struct.pack("=Q", every)
    ruleset = call("syscall", _CREATE_RULESET, handled, len(handled), 0)
    for path, allowed in rules:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not os.path.isdir(path):
            allowed &= _OF_FILES
        call("syscall", _ADD_RULE, ruleset, 1, struct.pack("=Qi", allowed & every, place), 0)
        os.close(place)
    call("syscall", _RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def filter_calls(program: bytes) -> None:
    """Install a filter of system calls."""
    held = ctypes.create_string_buffer(program, len(program))
    given = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held))
    call("prctl", _PR_SET_SECCOMP, 2, given, 0, 0)


def rule_alone(orders: Orders, control: int) -> NoReturn:
    """Be the first process of the namespace: build the walls, start the program, reap, and end with it.

    When the first process ends, the kernel kills every other one of its namespace.
    """
    call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    build_root(orders)
    lock_files(orders)
    filter_calls(bytes.fromhex(orders["filter"]))
    program = os.fork()
    if program == 0:
        run(orders, control)
    while True:
        ended, status = os.wait()
        if ended == program:
            os._exit(code_of(status))


def run(orders: Orders, control: int) -> NoReturn:
    """Become the program itself."""
    try:
        os.chdir(orders["cwd"])
        os.execve(orders["argv"][0], orders["argv"], orders["env"])
    except OSError as error:
        say(control, {"error": f"{orders['argv'][0]}: {error.strerror}"})
    os._exit(DROPPED)


def code_of(status: int) -> int:
    """Return the exit code as a shell says it: 128 and the signal's number for one that was killed."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def say(control: int, message: dict[str, Any]) -> None:
    """Write one line; a worker that is gone needs none."""
    with contextlib.suppress(OSError):
        os.write(control, json.dumps(message).encode() + b"\n")


def read_line(control: int) -> bytes:
    """Read up to the first newline; empty when the worker is gone."""
    read = bytearray()
    while not read.endswith(b"\n"):
        piece = os.read(control, 65536)
        if not piece:
            return b""
        read += piece
    return bytes(read)


def keep_only(descriptors: set[int]) -> None:
    """Close every descriptor but those of standard input and output, and *descriptors*."""
    low = 3
    for each in sorted(descriptors):
        os.closerange(low, each)
        low = each + 1
    os.closerange(low, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def contain(control: int, handover: int, channel: int, *, status: int, watchman: int) -> NoReturn:
    """Be the child: keep the descriptors that are needed, out of the way of the program's."""
    control, status = (fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, HIGH) for each in (control, status))
    handover = fcntl.fcntl(handover, fcntl.F_DUPFD_CLOEXEC, HIGH) if handover >= 0 else -1
    kept = {control, status, handover} - {-1}
    if channel >= 0:
        os.dup2(channel, CHANNEL, inheritable=True)
        kept.add(CHANNEL)
    keep_only(kept)
    guarded(control, lambda: obey(control, handover, status, watchman))


def obey(control: int, handover: int, status: int, watchman: int) -> NoReturn:
    """Read the orders, give up what they say, build the walls and become the program."""
    orders: Orders = json.loads(read_line(control) or b"null")
    if orders is None:
        os._exit(DROPPED)
    if orders["stage"]:
        stage(orders)
    become(orders, watchman)
    if orders["layer"] != "none":
        divide(orders, handover)
    limit(orders)
    if orders["layer"] == "none":
        run(orders, control)
    if orders["layer"] == "bubblewrap":
        wrap(orders, status)
    first = os.fork()
    if first == 0:
        guarded(control, lambda: rule_alone(orders, control))
    os.closerange(0, control)
    os._exit(code_of(os.waitpid(first, 0)[1]))


def guarded(control: int, work: Any) -> NoReturn:
    """Do *work*, which never returns; a wall that can't be built is said, and the program not started."""
    try:
        work()
    except OSError as error:
        reason = error.strerror or str(error)
        say(control, {"error": f"{reason}{f' ({error.filename})' if error.filename else ''}", "errno": error.errno})
    os._exit(DROPPED)


def kill_rest() -> None:
    """Kill every child that is left, adopted ones too."""
    own = os.getpid()
    with open(f"/proc/self/task/{own}/children", "rb") as file:
        left = file.read().split()
    for word in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(word), signal.SIGKILL)


def watch(child: int, waiting: set[int]) -> int:
    """Wait for the program, then kill and reap all that it left; return its exit code."""
    code = code_of(os.waitpid(child, 0)[1])
    waiting.clear()
    while True:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if not ended:
            kill_rest()
            time.sleep(RECHECK_S)


def main() -> None:
    """Fork the child, then watch it."""
    control, parent, handover, channel = (int(word) for word in sys.argv[1:5])
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    call("prctl", _PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() != parent:
        return
    told, status = os.pipe()
    watchman = os.getpid()
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        contain(control, handover, channel, status=status, watchman=watchman)
    quiet = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(quiet, number)
    keep_only({control, told})
    waiting = {child}

    def kill(*_: object) -> None:
        for each in waiting:
            os.kill(each, signal.SIGKILL)

    signal.signal(signal.SIGTERM, kill)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    say(control, {"pid": child})
    code = watch(child, waiting)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = b'"exit-code"' in os.read(told, 65536)
    say(control, {"code": code, "ran": ran, "cpu_s": used.ru_utime + used.ru_stime, "rss_bytes": used.ru_maxrss * 1024})


if __name__ == "__main__":
    main()
