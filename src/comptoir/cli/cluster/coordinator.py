"""One coordinator of a local cluster as a child process: ``comptoir up --member``, which reports as JSON lines."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from comptoir.cli.cluster.child import ClusterProcess, Deadline
from comptoir.cli.failure import Exit

START_WITHIN_S = 60.0
"""Most seconds to the first answer: migrations may be applied, jobs taken over."""
ANSWER_WITHIN_S = 1.0
"""An answer from memory takes a millisecond; one that takes a second comes from a process that stands still."""
AFTER_DRAIN_S = 10.0
"""Most seconds to end after the drain: the last bytes, what still waits for the database."""

OnEvent = Callable[[str, str, dict[str, Any]], None]
"""Called with the part's name, the kind of event, and its facts."""


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Coordinator(ClusterProcess):
    """Coordinator *number* of a trading post in *data*; it keeps its port when it is started again."""

    def __init__(
        self,
        number: int,
        *,
        data: Path,
        database: str,
        bus: str = "",
        options: Sequence[str] = (),
        drain_s: float = 10.0,
        on_event: OnEvent | None = None,
        log: Path | None = None,
    ) -> None:
        """Describe it; nothing runs yet.

        Args:
            data: the folder all coordinators of one post share: signing.key and quickstart.env.
            options: more of the command line of ``comptoir up``, as ``("--set", "fee_bps=500")``.
            drain_s: what the setting says, for `stop` to wait long enough.
            on_event: hears ``Listening`` (url), ``Draining`` (open).
        """
        super().__init__(f"coordinator {number}", log or data / "logs" / f"coordinator-{number}.log")
        self.number = number
        self.port = 0
        self._data = data
        # Addresses may hold passwords, and a command line is for everybody on the machine to read.
        self._env = {**os.environ, "COMPTOIR_DATABASE": database, "COMPTOIR_BUS": bus}
        self._options = options
        self._drain_s = drain_s
        self._on_event = on_event
        self._reader: asyncio.Task[None] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens once it was started."""
        return "127.0.0.1", self.port

    @property
    def url(self) -> str:
        """The same as a URL."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            Failure: it can't start.
        """
        if not self.down():
            return
        self.stopping = False
        self.port = self.port or free_port()
        command = [
            sys.executable, "-m", "comptoir", "up", "--member", "--host", "127.0.0.1", "--port", str(self.port),
            "--data", str(self._data), *self._options,
        ]  # fmt: skip
        process = await self._spawn(command, env=self._env, events=True)
        assert process.stdout is not None
        listening: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read(process.stdout, listening))
        deadline = Deadline(START_WITHIN_S)
        await asyncio.wait((listening, self._reader), timeout=START_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            return
        if deadline.over:
            self.kill()
        code = await process.wait()
        if code == Exit.REFUSED:
            # Perhaps somebody else has its port by now; another costs nothing.
            self.port = 0
        raise self.failure("did not start")

    async def answers(self, within_s: float = ANSWER_WITHIN_S) -> bool:
        """Say whether it answers that it is open; one that drains, stands still or is down does not."""
        try:
            async with asyncio.timeout(within_s):
                reader, writer = await asyncio.open_connection(*self.address)
                try:
                    writer.write(b"GET /house/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    return b'"status":"open"' in await reader.read()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    def drain(self) -> None:
        """Tell it to end in order (SIGTERM) and do not wait; supervised, it is started again."""
        self._signal(signal.SIGTERM)

    async def stop(self) -> None:
        """Drain it and wait for its end."""
        await self._end((signal.SIGTERM, self._drain_s + AFTER_DRAIN_S))
        if self._reader is not None:
            await asyncio.wait((self._reader,))

    async def _read(self, lines: asyncio.StreamReader, listening: "asyncio.Future[None]") -> None:
        while line := await lines.readline():
            with contextlib.suppress(msgspec.DecodeError):
                event = msgspec.json.decode(line, type=dict[str, Any])
                kind = str(event.pop("event", ""))
                if kind == "Listening" and not listening.done():
                    listening.set_result(None)
                if self._on_event is not None:
                    self._on_event(self.name, kind, event)
