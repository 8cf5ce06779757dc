"""A database is brought back without its last commits, on SQLite and on PostgreSQL: what everybody sees, and which
settings would have kept everything."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psycopg

from comptoir.app import open_core, running
from comptoir.cli.local_worker import move_state
from comptoir.kit.ids import public
from comptoir.reports import audit
from comptoir.settings import Settings
from tests.post import QUICK, Post, open_post
from tests.servers import OwnServer
from tests.standby import Standby

BOUND_S = 30.0

CHAT = {"model": "trivial", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


async def _call(post: Post, method: str, path: str, body: object = None, *, admin: bool = False) -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {post.admin_key if admin else post.buyer_key}"}
    timeout = aiohttp.ClientTimeout(total=BOUND_S)
    async with (
        aiohttp.ClientSession(post.url, headers=headers, timeout=timeout) as session,
        session.request(method, path, json=body) as answer,
    ):
        return answer.status, await answer.json()


@asynccontextmanager
async def reopened(post: Post, folder: Path, database: str = "") -> AsyncIterator[Post]:
    """Start the post again, as it is in *folder* by now."""
    async with open_core(Settings(data=str(folder), database=database, port=0, **QUICK)) as core, running(core) as url:
        if (post.folder / "worker").exists():
            move_state(post.folder / "worker", url)
        yield Post(core, url, post.buyer_id, post.buyer_key, post.admin_key, post.folder)
        assert await audit(core.db) == []


async def confirm_more(post: Post) -> list[str]:
    """Have an answer settled and a deposit confirmed; return how each is named when it is missing."""
    status, _ = await _call(post, "POST", "/v1/chat/completions", CHAT)
    assert status == 200
    body = {"owner": "ada", "credits": 7}
    status, deposited = await _call(post, "POST", "/house/deposit", body, admin=True)
    assert status == 201
    (job,) = await post.core.jobs.newest(owner_id=post.buyer_id, state=None, limit=1, before=None)
    return [f"deposit {deposited['transfer']}", public("rcpt", job.id)]


async def expect_lost(post: Post, names: list[str]) -> None:
    """What everybody sees while *names* are missing."""
    for path in ("/health", "/infrintia/health", "/infernet/health"):
        status, said = await _call(post, "GET", path)
        assert (path, status, said["status"]) == (path, 503, "unhealthy")
    _, said = await _call(post, "GET", "/health")
    assert "comptoir recover" in said["checks"]["commits"]["error"]
    assert (await _call(post, "GET", "/house/status"))[1]["status"] == "lost"
    status, said = await _call(post, "POST", "/v1/chat/completions", CHAT)
    assert status == 503
    assert "missing commits" in said["error"]["message"]
    run = {"model": "trivial", "input_text": "hi", "max_tokens": 5}
    assert (await _call(post, "POST", "/run/model", run))[0] == 503
    assert (await _call(post, "POST", "/house/deposit", {"owner": "ada", "credits": 1}, admin=True))[0] == 503
    status, said = await _call(post, "GET", "/house/recover", admin=True)
    assert (status, said["lost"], said["missing"], said["names"]) == (200, True, len(names), names)
    status, said = await _call(post, "GET", "/house/audit", admin=True)
    assert (status, [one["what"] for one in said["differences"]]) == (200, ["commits"])


async def accept(post: Post) -> None:
    """The operator accepts the loss, and work is taken again."""
    body = {"accept_loss": True, "reason": "tried by a test"}
    assert (await _call(post, "POST", "/house/recover", body))[0] == 403
    status, said = await _call(post, "POST", "/house/recover", body, admin=True)
    assert (status, said["lost"], said["epoch"], said["reason"]) == (200, False, 1, "tried by a test")
    assert (await _call(post, "GET", "/health"))[0] == 200
    async with post.worker():
        assert (await _call(post, "POST", "/v1/chat/completions", CHAT))[0] == 200


class TestSqlite:
    async def test_an_older_backup(self, tmp_path: Path) -> None:
        async with open_post(tmp_path) as post, post.worker():
            await confirm_more(post)
            with sqlite3.connect(tmp_path / "data" / "comptoir.db") as live:
                live.execute("VACUUM INTO ?", (str(tmp_path / "backup.db"),))
            live.close()
            names = await confirm_more(post)
        shutil.copy(tmp_path / "backup.db", tmp_path / "data" / "comptoir.db")

        async with reopened(post, tmp_path / "data") as again, again.worker():
            await expect_lost(again, names)
        async with reopened(post, tmp_path / "data") as again:
            await expect_lost(again, names)
            await accept(again)
        async with reopened(post, tmp_path / "data") as again:
            assert not again.core.db.lost

    async def test_a_write_ahead_log_that_was_cut(self, tmp_path: Path) -> None:
        """What a disk does that says it has written, and has not."""
        wal = tmp_path / "data" / "comptoir.db-wal"
        async with open_post(tmp_path) as post, post.worker():
            await confirm_more(post)
            size = wal.stat().st_size
            names = await confirm_more(post)
            shutil.copytree(tmp_path / "data", tmp_path / "crashed")
        os.truncate(tmp_path / "crashed" / "comptoir.db-wal", size)

        async with reopened(post, tmp_path / "crashed") as again:
            await expect_lost(again, names)
            await accept(again)

    async def test_a_crash_that_cuts_nothing_is_no_loss(self, tmp_path: Path) -> None:
        async with open_post(tmp_path) as post, post.worker():
            await confirm_more(post)
            shutil.copytree(tmp_path / "data", tmp_path / "crashed")

        async with reopened(post, tmp_path / "crashed") as again:
            assert not again.core.db.lost


async def until_lost(post: Post) -> None:
    """Have somebody ask, until it is known."""
    async with asyncio.timeout(BOUND_S):
        while not post.core.db.lost:
            assert (await _call(post, "POST", "/house/deposit", {"owner": "ada", "credits": 1}, admin=True))[0] == 503


class TestPostgres:
    async def test_an_asynchronous_standby_promoted_too_early(
        self, tmp_path: Path, own_server: OwnServer, standby: Standby
    ) -> None:
        async with open_post(tmp_path, database=own_server.url) as post:
            async with post.worker():
                await confirm_more(post)
                await asyncio.to_thread(standby.until_streaming)
                standby.stop()
                names = await confirm_more(post)
                own_server.kill()
                await asyncio.to_thread(standby.take_over)

                await until_lost(post)
                await expect_lost(post, names)
            refused = await _call(post, "POST", "/house/recover", {"accept_loss": True}, admin=True)
            assert refused[0] == 409

        async with reopened(post, tmp_path / "data", own_server.url) as again:
            await expect_lost(again, names)
            await accept(again)

    async def test_with_a_synchronous_standby_nothing_is_lost(
        self, tmp_path: Path, own_server: OwnServer, standby: Standby
    ) -> None:
        async with open_post(tmp_path, database=own_server.url) as post, post.worker():
            await asyncio.to_thread(standby.until_streaming)
            with psycopg.connect(own_server.url, autocommit=True) as primary:
                primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
                primary.execute("SELECT pg_reload_conf()")
                while primary.execute("SELECT sync_state FROM pg_stat_replication").fetchone() != ("sync",):
                    await asyncio.sleep(0.01)
            for _ in range(3):
                names = await confirm_more(post)
            own_server.kill()
            with psycopg.connect(standby.url, autocommit=True) as promoted:
                promoted.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await asyncio.to_thread(standby.take_over)

            async with asyncio.timeout(BOUND_S):
                while (await _call(post, "POST", "/house/deposit", {"owner": "ada", "credits": 1}, admin=True))[
                    0
                ] != 201:
                    await asyncio.sleep(0.01)
            assert not post.core.db.lost
            assert len(names) == 2
            posted = await post.core.ledger.posted([bytes.fromhex(names[0].split()[1])])
            assert len(posted) == 1

    async def test_without_synchronous_commit_a_crash_loses_what_was_confirmed(
        self, tmp_path: Path, own_server: OwnServer
    ) -> None:
        async with open_post(tmp_path, database=own_server.url) as post, post.worker():
            await confirm_more(post)
            with psycopg.connect(own_server.url, autocommit=True) as server:
                for option in ("synchronous_commit = off", "wal_writer_delay = 10000"):
                    server.execute(f"ALTER SYSTEM SET {option}")
                server.execute("SELECT pg_reload_conf()")
                while server.execute("SHOW synchronous_commit").fetchone() != ("off",):
                    await asyncio.sleep(0.01)
            await confirm_more(post)
            own_server.kill()
            own_server.start()

            await until_lost(post)


def _waits_for_a_standby(server: OwnServer, level: str) -> bool:
    """Commit at this level of ``synchronous_commit``; tell whether that waits for a standby, which is away."""
    watcher = psycopg.connect(server.url, autocommit=True)
    writer = psycopg.connect(server.url, autocommit=True)
    with watcher, writer, ThreadPoolExecutor(1) as thread:
        writer.execute(f"SET synchronous_commit = {level}")
        committed = thread.submit(writer.execute, "INSERT INTO tried VALUES (%s)", (level,))
        pid = writer.info.backend_pid
        waiting = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"
        waited = False
        while not committed.done():
            waited = watcher.execute(waiting, (pid,)).fetchone() is not None or waited
        committed.result()
        return waited


class TestWhatSettingsPromise:
    """The table in docs/operating.md, as far as it can be tried without cutting the power."""

    def test_which_commits_wait_for_a_standby(self, own_server: OwnServer, standby: Standby) -> None:
        with psycopg.connect(own_server.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE tried (level text)")
        standby.until_streaming()
        standby.stop()
        alone = {level: _waits_for_a_standby(own_server, level) for level in ("on", "local")}
        with psycopg.connect(own_server.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (walreceiver)'")
            connection.execute("SELECT pg_reload_conf()")
            while connection.execute("SHOW synchronous_standby_names").fetchone() == ("",):
                connection.execute("SELECT pg_sleep(0.01)")

        levels = ("on", "remote_apply", "remote_write", "local", "off")
        named = {level: _waits_for_a_standby(own_server, level) for level in levels}

        assert alone == {"on": False, "local": False}
        assert named == {"on": True, "remote_apply": True, "remote_write": True, "local": False, "off": False}

    def test_a_kill_takes_nothing_where_only_fsync_is_off(self, own_server: OwnServer) -> None:
        with psycopg.connect(own_server.url, autocommit=True) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("off",)
            connection.execute("CREATE TABLE tried (level text)")
            connection.execute("INSERT INTO tried VALUES ('kept')")

        own_server.kill()
        own_server.start()

        with psycopg.connect(own_server.url, autocommit=True) as connection:
            assert connection.execute("SELECT level FROM tried").fetchall() == [("kept",)]
