"""The filter of system calls (seccomp): what no program that is sold needs, and what attacks on the kernel begin with.

It is a second wall. Files, processes and network are divided by namespaces; this closes the calls through which those,
or the kernel itself, were broken out of before. A refused call fails with an error, and the program goes on.
"""

import errno
import struct

_X86_64 = 0xC000003E
_AARCH64 = 0xC00000B7
_X32_BIT = 0x40000000

# Name, and its numbers on x86_64 and aarch64 (None: there is none).
_REFUSED: tuple[tuple[str, tuple[int | None, int | None]], ...] = (
    # Other processes' memory and descriptors.
    ("ptrace", (101, 117)),
    ("process_vm_readv", (310, 270)),
    ("process_vm_writev", (311, 271)),
    ("process_madvise", (440, 440)),
    ("kcmp", (312, 272)),
    ("pidfd_getfd", (438, 438)),
    # Mounts, roots and namespaces.
    ("mount", (165, 40)),
    ("umount2", (166, 39)),
    ("pivot_root", (155, 41)),
    ("chroot", (161, 51)),
    ("move_mount", (429, 429)),
    ("open_tree", (428, 428)),
    ("fsopen", (430, 430)),
    ("fsconfig", (431, 431)),
    ("fsmount", (432, 432)),
    ("fspick", (433, 433)),
    ("mount_setattr", (442, 442)),
    ("unshare", (272, 97)),
    ("setns", (308, 268)),
    ("open_by_handle_at", (304, 265)),
    ("name_to_handle_at", (303, 264)),
    # Parts of the kernel with a long record of holes.
    ("bpf", (321, 280)),
    ("perf_event_open", (298, 241)),
    ("userfaultfd", (323, 282)),
    ("io_uring_setup", (425, 425)),
    ("io_uring_enter", (426, 426)),
    ("io_uring_register", (427, 427)),
    ("fanotify_init", (300, 262)),
    ("memfd_secret", (447, 447)),
    ("add_key", (248, 217)),
    ("request_key", (249, 218)),
    ("keyctl", (250, 219)),
    ("quotactl", (179, 60)),
    ("quotactl_fd", (443, 443)),
    ("lookup_dcookie", (212, 18)),
    ("modify_ldt", (154, None)),
    # The machine itself.
    ("kexec_load", (246, 104)),
    ("kexec_file_load", (320, 294)),
    ("init_module", (175, 105)),
    ("finit_module", (313, 273)),
    ("delete_module", (176, 106)),
    ("reboot", (169, 142)),
    ("swapon", (167, 224)),
    ("swapoff", (168, 225)),
    ("syslog", (103, 116)),
    ("acct", (163, 89)),
    ("settimeofday", (164, 170)),
    ("clock_settime", (227, 112)),
    ("clock_adjtime", (305, 266)),
    ("adjtimex", (159, 171)),
    ("sethostname", (170, 161)),
    ("setdomainname", (171, 162)),
    ("iopl", (172, None)),
    ("ioperm", (173, None)),
    ("vhangup", (153, 58)),
    # The processors that were agreed stay those.
    ("sched_setaffinity", (203, 122)),
)
_MEMORY_THAT_NO_PROCESS_SHOWS: tuple[tuple[str, tuple[int | None, int | None]], ...] = (
    ("memfd_create", (319, 279)),
    ("shmget", (29, 194)),
)
"""Refused where memory is counted by looking at processes: it would be in none of them."""

_CLONE = (56, 220)
_CLONE3 = (435, 435)
_IOCTL = (16, 29)
_SOCKET = (41, 198)
_NAMESPACES = 0x7E020080
"""``CLONE_NEW*``: time, mounts, cgroup, names, IPC, users, processes, network."""
_TERMINAL_WRITES = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, which type into the terminal."""
_FAMILIES = (1, 2, 10)
"""Unix, IPv4, IPv6."""

_LOAD, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW = 0x7FFF0000
_OF_NUMBER, _OF_MACHINE, _OF_FIRST, _OF_SECOND = 0, 4, 16, 24

MACHINES = ("x86_64", "aarch64")


def _instruction(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("<HBBI", code, then, otherwise, value)


def _refuse(number: int) -> bytes:
    return _instruction(_RETURN, 0x00050000 | number)


def syscall_filter(machine: str, *, hidden_memory: bool) -> bytes:
    """Return the filter as the kernel takes it, an array of ``struct sock_filter``.

    Args:
        machine: as `os.uname` says it; one of `MACHINES`.
        hidden_memory: also refuse memory that belongs to no process, for where no control group counts it.
    """
    column = MACHINES.index(machine)
    program = [
        _instruction(_LOAD, _OF_MACHINE),
        _instruction(_JUMP_EQUAL, (_X86_64, _AARCH64)[column], 1, 0),
        _refuse(errno.ENOSYS),
        _instruction(_LOAD, _OF_NUMBER),
        _instruction(_JUMP_ABOVE, _X32_BIT, 0, 1),
        _refuse(errno.ENOSYS),
    ]
    for _, numbers in _REFUSED + (_MEMORY_THAT_NO_PROCESS_SHOWS if hidden_memory else ()):
        number = numbers[column]
        if number is not None:
            program += [_instruction(_JUMP_EQUAL, number, 0, 1), _refuse(errno.EPERM)]
    # Its flags are in memory, where a filter can't look: the C library falls back to clone.
    program += [_instruction(_JUMP_EQUAL, _CLONE3[column], 0, 1), _refuse(errno.ENOSYS)]
    program += [
        _instruction(_JUMP_EQUAL, _CLONE[column], 0, 4),
        _instruction(_LOAD, _OF_FIRST),
        _instruction(_JUMP_BITS, _NAMESPACES, 0, 1),
        _refuse(errno.EPERM),
        _instruction(_RETURN, _ALLOW),
    ]
    program += [
        _instruction(_JUMP_EQUAL, _IOCTL[column], 0, 5),
        _instruction(_LOAD, _OF_SECOND),
        _instruction(_JUMP_EQUAL, _TERMINAL_WRITES[0], 1, 0),
        _instruction(_JUMP_EQUAL, _TERMINAL_WRITES[1], 0, 1),
        _refuse(errno.EPERM),
        _instruction(_RETURN, _ALLOW),
    ]
    program += [
        _instruction(_JUMP_EQUAL, _SOCKET[column], 0, 5),
        _instruction(_LOAD, _OF_FIRST),
        *(_instruction(_JUMP_EQUAL, family, 3 - place, 0) for place, family in enumerate(_FAMILIES)),
        _refuse(errno.EAFNOSUPPORT),
    ]
    return b"".join([*program, _instruction(_RETURN, _ALLOW)])
