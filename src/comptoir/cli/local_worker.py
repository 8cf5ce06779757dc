"""The worker beside a local coordinator: a child process, restarted when it crashes, stopped by closing its input."""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from comptoir.cli.failure import Exit
from comptoir.worker.state import HostState, StateFile

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0
STEADY_S = 60.0
"""A worker that ran this long has recovered: the next crash starts with a short wait again."""

STOP_WITHIN_S = 8.0
"""Most seconds for the worker to end after the coordinator has drained: nothing is left for it to do by then."""

LINE_BYTES_MAX = 1 << 20

OnEvent = Callable[[str, dict[str, Any]], None]


def move_state(folder: Path, url: str) -> None:
    """Tell the worker's state that its coordinator is now at *url*: same data folder, so the same coordinator.

    Raises:
        StateUnusable: the state can't be written.
    """
    try:
        state = msgspec.json.decode((folder / "host.json").read_bytes(), type=HostState)
    except (FileNotFoundError, msgspec.DecodeError):
        # None yet; or broken, which the worker itself says best.
        return
    if state.url != url:
        StateFile(folder, [url]).write(msgspec.structs.replace(state, url=url))


class LocalWorker:
    """Runs ``comptoir host`` with *arguments* until `stop`; *on_event* gets its events and our own about it.

    Our own are ``WorkerCrashed`` (code, in_s) and ``WorkerEnded``.
    """

    def __init__(self, arguments: Sequence[str], *, url: str, key: str, on_event: OnEvent) -> None:
        self._arguments = arguments
        # Keys go through the environment: a command line is for everybody on the machine to read.
        self._env = {**os.environ, "COMPTOIR_URL": url, "COMPTOIR_KEY": key}
        self._on_event = on_event
        self._process: Process | None = None
        self._stopping = False
        self._gave_up = False
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the worker that runs now."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start it in the background."""
        self._task = asyncio.get_running_loop().create_task(self._supervise())

    async def stop(self, *, within_s: float = STOP_WITHIN_S) -> None:
        """Let the worker end in order; after *within_s* it is killed, by its own id."""
        self._stopping = True
        if self._task is None:
            return
        process = self._process
        if process is None:
            self._task.cancel()
        elif process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(within_s):
                await asyncio.wait((self._task,))
        except TimeoutError:
            if self._process is not None:
                self._process.kill()
            await asyncio.wait((self._task,))

    def kill(self) -> None:
        """End it at once."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        wait_s = BACKOFF_FIRST_S
        while not self._stopping:
            began_s = loop.time()
            code = await self._once()
            if self._stopping or self._gave_up or code in (Exit.OK, Exit.USAGE):
                # It ended in order, or said why it can't run: trying again won't change that.
                self._on_event("WorkerEnded", {"code": code})
                return
            if loop.time() - began_s > STEADY_S:
                wait_s = BACKOFF_FIRST_S
            self._on_event("WorkerCrashed", {"code": code, "in_s": wait_s})
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, BACKOFF_MAX_S)

    async def _once(self) -> int:
        """Run the worker once; return its exit code (negative: the signal that ended it)."""
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "comptoir",
            "host",
            *self._arguments,
            stdin=PIPE,
            stdout=PIPE,
            env=self._env,
            start_new_session=True,
            limit=LINE_BYTES_MAX,
        )
        assert process.stdout is not None
        try:
            if self._stopping and process.stdin is not None:
                process.stdin.close()
            while line := await process.stdout.readline():
                with contextlib.suppress(msgspec.DecodeError):
                    event = msgspec.json.decode(line, type=dict[str, Any])
                    kind = str(event.pop("event", ""))
                    self._gave_up = self._gave_up or kind == "GaveUp"
                    self._on_event(kind, event)
            return await process.wait()
        finally:
            self._process = None
