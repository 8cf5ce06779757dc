"""The parts of a local cluster: they start, stop, die, stand still and come back, and never outlive who started
them."""

import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from comptoir.cli.cluster.child import ClusterProcess
from comptoir.cli.cluster.postgres import SOCKET_PATH_BYTES_MAX, LocalPostgres, socket_folder
from comptoir.cli.cluster.redis import LocalRedis
from comptoir.cli.failure import Failure
from tests.cli.cluster.conftest import Watched
from tests.cli.conftest import clean_environment


@pytest.fixture(scope="module")
def shared(run_folder: Path) -> Iterator[Path]:
    """A folder whose PostgreSQL is made by the first test that starts it."""
    with tempfile.TemporaryDirectory(prefix="place-", dir=run_folder) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "data"


@asynccontextmanager
async def started(part: ClusterProcess) -> AsyncIterator[None]:
    """Start *part*; it is gone afterwards."""
    try:
        await part.start()
        yield
    finally:
        await part.stop()


def one(url: str, sql: str) -> object:
    """Ask a database for one value."""
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        row = connection.execute(sql).fetchone()  # type: ignore[call-overload]
        return row[0] if row else None


def write(url: str, sql: str) -> None:
    """Run a statement."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql)  # type: ignore[call-overload]


class TestPostgres:
    async def test_it_is_made_once_and_keeps_what_was_committed(self, shared: Path) -> None:
        first = LocalPostgres(shared / "postgres", fsync=False)
        async with started(first):
            write(first.url, "CREATE TABLE kept AS SELECT 42 AS n")

        again = LocalPostgres(shared / "postgres", fsync=False)
        async with started(again):
            assert one(again.url, "SELECT n FROM kept") == 42

    async def test_after_kill_it_comes_back_with_everything_committed(self, shared: Path) -> None:
        server = LocalPostgres(shared / "postgres", fsync=False)
        async with started(server):
            write(server.url, "CREATE TABLE kept_too AS SELECT 42 AS n")
            pid = server.pid

            server.kill()
            assert await server.ended() == -signal.SIGKILL
            await server.start()

            assert server.pid != pid
            assert one(server.url, "SELECT n FROM kept_too") == 42

    async def test_it_waits_for_an_earlier_one_over_the_same_files_to_end(self, shared: Path) -> None:
        """Its launcher was killed, and another was started at once."""
        earlier = LocalPostgres(shared / "postgres", fsync=False)
        later = LocalPostgres(shared / "postgres", fsync=False, log=shared / "later.log")
        async with started(earlier):
            starting = asyncio.create_task(later.start())
            async with asyncio.timeout(30):
                while "another postmaster" not in later.last_words():
                    assert not starting.done()
                    await asyncio.sleep(0.01)
        try:
            await starting
            assert one(later.url, "SELECT 1") == 1
        finally:
            await later.stop()

    async def test_paused_it_answers_nobody_and_then_goes_on(self, shared: Path) -> None:
        """Its backends stand still with it, or a coordinator that is connected would notice nothing."""
        server = LocalPostgres(shared / "postgres", fsync=False)
        async with started(server), await psycopg.AsyncConnection.connect(server.url) as connection:
            await connection.execute("SELECT 1")

            server.pause()
            asked = asyncio.create_task(connection.execute("SELECT 1"))
            await asyncio.wait((asked,), timeout=0.3)
            assert not asked.done()
            server.resume()

            await asyncio.wait_for(asked, 10)

    async def test_nothing_listens_on_the_network(self, shared: Path) -> None:
        server = LocalPostgres(shared / "postgres", fsync=False)
        async with started(server):
            assert one(server.url, "SHOW listen_addresses") == ""
            assert (shared / "postgres").stat().st_mode & 0o077 == 0

    async def test_files_of_another_version_are_refused(self, place: Path) -> None:
        (place / "postgres").mkdir(parents=True)
        (place / "postgres" / "PG_VERSION").write_text("9\n")

        with pytest.raises(Failure, match="was made by PostgreSQL 9"):
            await LocalPostgres(place / "postgres").start()

    def test_a_socket_whose_path_is_too_long_moves_to_the_temporary_folder(self, place: Path) -> None:
        deep = place / ("d" * SOCKET_PATH_BYTES_MAX)
        deep.mkdir(parents=True)

        short = socket_folder(deep, "s")

        assert len(str(short / "s")) <= SOCKET_PATH_BYTES_MAX
        assert short.stat().st_mode & 0o077 == 0
        assert socket_folder(deep, "s") == short
        short.rmdir()


class TestRedis:
    async def test_it_answers_is_killed_and_comes_back(self, place: Path) -> None:
        server = LocalRedis(place / "redis")
        async with started(server):
            server.kill()
            assert await server.ended() == -signal.SIGKILL

            await server.start()

            reader, writer = await asyncio.open_unix_connection(str(server.socket))
            writer.write(b"PING\r\n")
            assert await reader.readline() == b"+PONG\r\n"
            writer.close()
        assert server.down()

    async def test_a_paused_one_is_stopped_too(self, place: Path) -> None:
        server = LocalRedis(place / "redis")
        async with started(server):
            watched = Watched(server.pid)
            server.pause()
        assert watched.gone()

    async def test_one_that_can_not_start_says_why(self, place: Path) -> None:
        (place / "redis" / "redis.sock").mkdir(parents=True)

        with pytest.raises(Failure, match=r"Redis did not start: .*socket"):
            await LocalRedis(place / "redis").start()


PARENT = """\
import asyncio, sys
from pathlib import Path
from comptoir.cli.cluster.postgres import LocalPostgres
from comptoir.cli.cluster.redis import LocalRedis

async def main():
    folder = Path(sys.argv[1])
    parts = [LocalPostgres(folder / "postgres", fsync=False), LocalRedis(folder / "redis")]
    for part in parts:
        await part.start()
    print(*(part.pid for part in parts), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class TestOrphans:
    def test_when_the_parent_is_killed_so_are_they(self, place: Path) -> None:
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(place)], stdout=subprocess.PIPE, text=True, env=clean_environment()
        )
        with parent:
            assert parent.stdout is not None
            children = [Watched(int(pid)) for pid in parent.stdout.readline().split()]

            parent.kill()

            assert len(children) == 2
            assert all(child.gone() for child in children)
