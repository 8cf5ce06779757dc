"""Programs of ours as processes that a test may kill, forked from one that has imported them: a start costs no half
second of CPU.

They are processes like any other: own memory, sockets and files, and an end that they don't see coming. What a program
does that starts by itself, `tests.cli` and `tests.chaos` show.
"""

import asyncio
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing import connection, forkserver
from pathlib import Path

import pytest

from tests.house.tree import ROOT

PRELOADED = ["tests.journeys.coordinator", "tests.chaos.worker", "tests.journeys.container_host", "tests.polling_host"]

_context = multiprocessing.get_context("forkserver")


class Forked:
    """One process that runs *main* with *arguments*; its errors go to *log*, if there is one."""

    def __init__(self, main: Callable[..., None], *arguments: str, log: Path | None = None) -> None:
        _start_server()
        self._process = _context.Process(target=_run, args=(main, arguments, log), daemon=True)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """How it ended; negative: by which signal; None: it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended."""
        assert self._process.pid is not None
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for its end; return how it ended."""
        while self.returncode is None:
            await asyncio.to_thread(connection.wait, [self._process.sentinel], 1.0)
        assert self.returncode is not None
        return self.returncode


def _start_server() -> None:
    """Start what they are forked from, once; it finds our code by the environment, whoever runs the tests from
    where."""
    _context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{ROOT}")
        forkserver.ensure_running()


def stop_server() -> None:
    """End it, and be charged with what it and all that were forked from it took."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def _run(main: Callable[..., None], arguments: tuple[str, ...], log: Path | None) -> None:
    if log is not None:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(handle, 2)
        os.close(handle)
    main(*arguments)
