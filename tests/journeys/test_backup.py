"""Backup and restore as docs/operating.md has them, line for line, of a trading post that goes on working meanwhile."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from comptoir.app import open_core
from comptoir.cli.cluster.postgres import LocalPostgres
from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import Reader
from comptoir.receipts import read_registry, verify
from comptoir.reports import audit
from comptoir.settings import Settings
from tests.house.tree import ROOT
from tests.post import Post, open_post

BUYERS = 8
BEFORE = 40
"""Receipts given out when the backup begins, and again as many when the load ends."""

BLOCK = re.compile(r"^```bash\n# ([a-z ,]+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BODY = b'{"model":"trivial","messages":[{"role":"user","content":"hi"}],"max_tokens":20}'


def documented(what: str) -> str:
    """Return a block of shell lines of the page by its first comment."""
    blocks: dict[str, str] = dict(BLOCK.findall((ROOT / "docs/operating.md").read_text()))
    return blocks[what]


async def shell(lines: str, folder: Path, **env: str) -> str:
    """Run *lines* as a person would, with our programs on the path."""
    bin = folder / "bin"
    bin.mkdir(exist_ok=True)
    for name, program in (("comptoir", f"{sys.executable} -m comptoir"), ("python3", sys.executable)):
        (bin / name).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        (bin / name).chmod(0o755)
    path = [str(bin), env.pop("PROGRAMS", ""), os.environ["PATH"]]
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        lines,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PATH": ":".join(filter(None, path)), "PYTHONPATH": f"{ROOT}/src", **env},
    )
    said, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, said.decode()
    return said.decode()


async def buy_forever(post: Post) -> None:
    """Buy one answer after another, read each to its end."""
    while True:
        job = await submit(post.core, Order(post.buyer_id, "test", "chat", "trivial", BODY, 20, False))
        reader = Reader(job)
        while await reader.next() is not None:
            continue


async def receipts(post: Post) -> int:
    """Count the receipts given out."""
    ((count,),) = await post.core.db.fetch("SELECT count(*) FROM receipts")
    return int(count)


@asynccontextmanager
async def under_load(post: Post) -> AsyncIterator[None]:
    """Give a block in whose middle `BEFORE` receipts were given out, and as many more by its end."""
    async with asyncio.TaskGroup() as group:
        buyers = [group.create_task(buy_forever(post)) for _ in range(BUYERS)]
        while await receipts(post) < BEFORE:
            await asyncio.sleep(0.01)
        yield
        until = await receipts(post) + BEFORE
        while await receipts(post) < until:
            await asyncio.sleep(0.01)
        for buyer in buyers:
            buyer.cancel()


@asynccontextmanager
async def loaded_post(folder: Path, database: str) -> AsyncIterator[Post]:
    """Run a trading post whose buyer can pay for a long test."""
    (folder / "data").mkdir()
    # What `comptoir up` writes; the documented lines copy it.
    (folder / "data" / "quickstart.env").write_text("COMPTOIR_URL=http://127.0.0.1:8080\n")
    async with open_post(folder, database=database) as post, post.worker(slots=BUYERS, options={"per_s": 400.0}):
        await post.core.ledger.deposit(owner_id=post.buyer_id, amount_uusd=1_000_000_000)
        yield post


async def check_restored(data: Path, database: str, *, total: int) -> None:
    """The audit finds nothing, every receipt verifies, and it is a picture of the middle."""
    async with open_core(Settings(data=str(data), database=database)) as core:
        assert await audit(core.db) == []
        registry = read_registry(await core.receipts.registry())
        ids = [row[0] for row in await core.db.fetch("SELECT job_id FROM receipts")]
        verdicts = [verify(await core.receipts.envelope_of(job_id), registry) for job_id in ids]

        assert BEFORE <= len(ids) < total
        assert [one for one in verdicts if not one.ok] == []


class TestBackup:
    async def test_sqlite(self, tmp_path: Path) -> None:
        names = {"DATA": str(tmp_path / "data"), "BACKUP": str(tmp_path / "backup"), "NEW": str(tmp_path / "new")}
        async with loaded_post(tmp_path, "") as post:
            async with under_load(post):
                await shell(documented("back up, sqlite"), tmp_path, **names)
            total = await receipts(post)

        said = await shell(documented("restore, sqlite"), tmp_path, **names)

        assert "zero differences" in said
        assert (tmp_path / "new").stat().st_mode & 0o077 == 0
        await check_restored(tmp_path / "new", "", total=total)

    async def test_postgresql(self, tmp_path: Path, place: Path) -> None:
        server = LocalPostgres(place / "postgres", fsync=False)
        try:
            await server.start()
            await self._dumped_and_restored(server, tmp_path)
        finally:
            await server.stop()

    async def _dumped_and_restored(self, server: LocalPostgres, folder: Path) -> None:
        restored = server.url.replace("/comptoir?", "/restored?")
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE restored")
        names = {
            "DATA": str(folder / "data"),
            "BACKUP": str(folder / "backup"),
            "NEW": str(folder / "new"),
            "COMPTOIR_DATABASE": server.url,
            "NEW_DATABASE": restored,
            "PROGRAMS": str(server.programs()),
        }
        async with loaded_post(folder, server.url) as post:
            async with under_load(post):
                await shell(documented("back up, postgresql"), folder, **names)
            total = await receipts(post)

        said = await shell(documented("restore, postgresql"), folder, **names)

        assert "zero differences" in said
        await check_restored(folder / "new", restored, total=total)


class TestDocument:
    @pytest.mark.parametrize("database", ["sqlite", "postgresql"])
    def test_both_ways_stand_on_the_page(self, database: str) -> None:
        for what in ("back up", "restore"):
            assert documented(f"{what}, {database}").strip()
