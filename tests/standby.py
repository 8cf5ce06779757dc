"""A PostgreSQL server that streams from another, and takes its place when that one is gone."""

import subprocess
from pathlib import Path

import psycopg

from tests.servers import BINARIES, OwnServer, hand_over, user


class Standby(OwnServer):
    """A standby that streams from a server, until it takes that one's place."""

    def __init__(self, primary: OwnServer, folder: Path) -> None:
        folder.mkdir()
        hand_over(folder)
        self._folder = folder
        self._data = folder / "data"
        self._primary = primary
        command = [BINARIES / "pg_basebackup", "-D", self._data, "-R", "-c", "fast", "-d", primary.url]
        subprocess.run(command, check=True, capture_output=True, user=user(), cwd="/")
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        self._process = None
        self.start()

    def until_streaming(self) -> None:
        """Wait until it has all that the primary has."""
        with psycopg.connect(self._primary.url, autocommit=True) as primary:
            (now,) = primary.execute("SELECT pg_current_wal_flush_lsn()").fetchone() or ("",)
            behind = "SELECT count(*) = 0 FROM pg_stat_replication WHERE flush_lsn >= %s"
            while primary.execute(behind, (now,)).fetchone() == (True,):
                primary.execute("SELECT pg_sleep(0.01)")

    def take_over(self) -> None:
        """Be promoted at the address of the primary, which is gone."""
        self.stop()
        with (self._data / "postgresql.auto.conf").open("a") as options:
            options.write("primary_conninfo = ''\n")
        self._folder, self.url = self._primary._folder, self._primary.url
        self.start()
        with psycopg.connect(self.url, autocommit=True) as promoted:
            assert promoted.execute("SELECT pg_promote()").fetchone() == (True,)
