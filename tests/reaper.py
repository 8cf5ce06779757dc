"""Ends whatever a test process left behind: ``python -I -S tests/reaper.py MARK FOLDER``, started by `tests.leftovers`.

It waits for the end of its standard input, whose other end the test process holds: the kernel closes that however the
process ends, kill -9 included. Then it interrupts, terminates and kills every process that bears the mark, and removes
the folder. It imports nothing of ours, so that it costs some milliseconds.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

ROUNDS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
"""An interrupt is what PostgreSQL takes for a fast shutdown, and what lets a test process leave its fixtures."""

ROUND_S = 2.0
"""How long a process has after each signal."""

KILLED_S = 10.0
"""How long the last round goes on: processes that start others meanwhile are killed too."""

LOOK_S = 0.02


def marked(mark: bytes) -> list[int]:
    """Return the processes whose environment, as they were started with it, has the line *mark*."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/environ", "rb") as environment:
                if mark in environment.read().split(b"\0"):
                    found.append(int(entry))
    return found


def send(number: int, pids: list[int]) -> None:
    """Send a signal; one that was stopped has to run to be ended."""
    for pid in pids:
        for each in (number, signal.SIGCONT):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, each)


def end(mark: bytes) -> None:
    """End all of them; returns when none is left, or they could not be killed."""
    for number in ROUNDS:
        last = number == signal.SIGKILL
        send(number, marked(mark))
        deadline = time.monotonic() + (KILLED_S if last else ROUND_S)
        while left := marked(mark):
            if time.monotonic() > deadline:
                break
            if last:
                send(number, left)
            time.sleep(LOOK_S)
        else:
            return


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end(os.fsencode(sys.argv[1]))
    shutil.rmtree(sys.argv[2], ignore_errors=True)
