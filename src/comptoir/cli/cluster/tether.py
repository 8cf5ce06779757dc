"""Run by path as the first moment of a child: ask the kernel to end it when its parent ends, then become the program.

``python -I -S tether.py PARENT SIGNAL USER PROGRAM ARGUMENTS…``. It imports nothing of Comptoir, so that it costs some
15 ms. What the kernel was asked survives ``execv``; it is lost by a change of user, which is why the user changes
first.
"""

import ctypes
import os
import pwd
import sys

PR_SET_PDEATHSIG = 1
ORPHANED = 113
"""Exit code when the parent was gone before the kernel knew."""


def main(parent: int, number: int, user: str, command: list[str]) -> None:
    """Become *command*, as *user* (empty: unchanged), ended by signal *number* when process *parent* ends.

    Raises:
        OSError: the kernel refuses, or there is no such program.
        KeyError: there is no such user.
    """
    if user:
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        # It ended before the kernel was asked: nobody would ever end us.
        sys.exit(ORPHANED)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
