"""A database that comes back older than what was confirmed: real workers hand in what they keep, and the books are as
they were."""

import asyncio
import os
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comptoir.app import open_core, running
from comptoir.dispatch import Core, lost_commits
from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import JobState
from comptoir.kit.db import Database
from comptoir.ledger import FEES
from comptoir.reports import audit
from comptoir.settings import Settings
from comptoir.transports.link import session
from tests.house.tree import ROOT
from tests.journeys.held_engine import HeldEngine
from tests.journeys.test_lost_commits import until_lost
from tests.post import QUICK, Post, open_post
from tests.servers import OwnServer
from tests.standby import Standby

HELD = "tests.journeys.held_engine:HeldEngine"
CHAT = {"model": "trivial", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
RUN = {"model": "trivial", "input_text": "hi", "max_tokens": 20}

Books = tuple[Counter[tuple[str, bytes]], set[tuple[Any, ...]], dict[bytes, bytes]]


async def books(db: Database) -> Books:
    """Return all balances, all transfers and all receipts; the fee accounts of all coordinators count as one."""
    accounts = await db.fetch("SELECT id, kind, balance_uusd, held_uusd FROM accounts")
    fees = {row[0] for row in accounts if row[1] == "fees"}
    balances = Counter[tuple[str, bytes]]()
    for account, _, balance, held in accounts:
        balances["balance", FEES if account in fees else account] += balance
        balances["held", account] += held
    moved = await db.fetch("SELECT id, debit_id, credit_id, amount_uusd, kind, promo_uusd FROM transfers")
    receipts = await db.fetch("SELECT job_id, payload FROM receipts")
    credited = {(*row[:2], FEES if row[2] in fees else row[2], *row[3:]) for row in moved}
    return balances, credited, dict(receipts)


async def buy(post: Post, *, chats: int, runs: int) -> list[str]:
    """Buy answers to attached and detached requests; return the jobs' public ids when all are answered."""
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {post.buyer_key}"}) as session:

        async def chat() -> str:
            async with session.post(f"{post.url}/v1/chat/completions", json=CHAT) as answer:
                assert answer.status == 200, await answer.text()
                return answer.headers["x-comptoir-job"]

        async def run() -> str:
            async with session.post(f"{post.url}/run/model", json=RUN) as answer:
                assert answer.status == 202, await answer.text()
                job = str((await answer.json())["job_id"])
            while (await show(post, session, job))["status"] != "completed":
                await asyncio.sleep(0.01)
            return job

        async with asyncio.timeout(30):
            return list(await asyncio.gather(*(chat() for _ in range(chats)), *(run() for _ in range(runs))))


async def show(post: Post, session: aiohttp.ClientSession, job: str) -> dict[str, Any]:
    async with session.get(f"{post.url}/jobs/{job}") as answer:
        found: dict[str, Any] = await answer.json()
        return found


@asynccontextmanager
async def again(before: Post, database: str = "") -> AsyncIterator[Post]:
    """Start the trading post once more over what is in its folder and *database*; its books are audited at the end."""
    # A worker's state belongs to the address that it registered at.
    port = int(before.url.rpartition(":")[2])
    chosen = Settings(data=str(before.folder / "data"), database=database, port=port, **QUICK)
    async with open_core(chosen) as core:
        async with running(core) as url:
            yield Post(core, url, before.buyer_id, before.buyer_key, before.admin_key, before.folder)
        assert await audit(core.db) == []


async def recover(post: Post, *options: str) -> tuple[int, str]:
    """Run ``comptoir recover`` as an operator does; return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "comptoir", "recover", "--url", post.url, *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/src", "COMPTOIR_ADMIN_KEY": post.admin_key, "COLUMNS": "200"},
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, said.decode()


async def health(post: Post) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"{post.url}/health") as answer:
        return answer.status


def save_database(post: Post) -> None:
    """Back the running database up, as docs/operating.md has it."""
    with sqlite3.connect(post.folder / "data/comptoir.db") as live, sqlite3.connect(post.folder / "older.db") as copy:
        live.backup(copy)


def restore_database(post: Post) -> None:
    """Put the backup in the database's place."""
    for path in (post.folder / "data").glob("comptoir.db*"):
        path.unlink()
    shutil.copy(post.folder / "older.db", post.folder / "data/comptoir.db")


async def until_kept(core: Core) -> None:
    """Wait until the last heads were signed and sent to the workers."""
    lines = [line for line in core.channels.values() if isinstance(line, session.Session)]
    async with asyncio.timeout(30):
        while any(line._head_timer is not None for line in lines):
            await asyncio.sleep(0.02)


async def bring_back(
    post: Post, was: Books | None, *, receipts: int, transfers: int = 0, nothing_missing: bool = True
) -> None:
    """Bring back what is missing, twice, the second time for nothing; then the books are as they *was*, if that is
    known. Where only a worker's head tells of a loss, nobody can say that nothing is missing: the operator accepts."""
    assert post.core.db.lost and await health(post) == 503
    if was is not None:
        assert await books(post.core.db) != was
    code, said = await recover(post)
    assert code == 1 and "are missing" in said, said

    code, said = await recover(post, "--bring-back")
    assert f"{receipts} receipts and {transfers} transfers were posted again" in said, said
    assert code == (0 if nothing_missing else 1) and ("nothing is missing" in said) == nothing_missing, said
    if was is not None:
        assert await books(post.core.db) == was
    code, said = await recover(post, "--bring-back")
    assert code == (0 if nothing_missing else 1), said
    if not nothing_missing:
        code, said = await recover(post, "--accept-loss", "--reason", "all of it was brought back")
        assert code == 0, said
    if was is not None:
        assert await books(post.core.db) == was
    assert not post.core.db.lost and await health(post) == 200


async def expect_answer_lost(post: Post, job: str) -> None:
    """A job that was brought back is completed and paid; what it answered was only in the database."""
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {post.buyer_key}"}) as session:
        shown = await show(post, session, job)
        assert (shown["status"], shown["output_text"], shown["error"]["code"]) == ("completed", None, "answer_lost")
        async with session.get(f"{post.url}/jobs/{job}/stream") as answer:
            assert answer.status == 410 and "last commits" in await answer.text()


async def expect_work(post: Post, *, linked: int) -> None:
    """Its workers are back, and answers are bought again."""
    await post.until_linked(linked)
    await buy(post, chats=2, runs=2)


class TestBroughtBack:
    async def test_an_older_backup_is_made_whole_from_the_workers_hands(self, tmp_path: Path) -> None:
        async with open_post(tmp_path) as first, first.worker(name="one"), first.worker(name="two"):
            await buy(first, chats=3, runs=3)
            save_database(first)
            lost = await buy(first, chats=6, runs=6)
            await first.core.ledger.deposit(owner_id=first.buyer_id, amount_uusd=777)
            was = await books(first.core.db)
        restore_database(first)

        async with again(first) as post, post.worker(name="one"), post.worker(name="two"):
            await bring_back(post, was, receipts=12, transfers=1)
            await expect_answer_lost(post, lost[-1])
            await expect_work(post, linked=2)

    @pytest.mark.proof
    async def test_a_standby_promoted_too_early_is_made_whole_from_the_workers_hands(
        self, tmp_path: Path, own_server: OwnServer, standby: Standby
    ) -> None:
        async with open_post(tmp_path, database=own_server.url) as first:
            async with first.worker(name="one"), first.worker(name="two"):
                await buy(first, chats=3, runs=3)
                await asyncio.to_thread(standby.until_streaming)
                standby.stop()
                lost = await buy(first, chats=6, runs=6)
                await first.core.ledger.deposit(owner_id=first.buyer_id, amount_uusd=777)
                await until_kept(first.core)
                was = await books(first.core.db)
                own_server.kill()
                await asyncio.to_thread(standby.take_over)
                await until_lost(first)
            code, said = await recover(first, "--bring-back")
            assert code != 0 and "restart" in said, said

        async with again(first, own_server.url) as post, post.worker(name="one"), post.worker(name="two"):
            await bring_back(post, was, receipts=12, transfers=1)
            await expect_answer_lost(post, lost[-1])
            await expect_work(post, linked=2)

    async def test_a_whole_folder_taken_back_is_noticed_by_what_a_worker_brings(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing in the folder can tell; the worker's head does."""
        monkeypatch.setattr(session, "HEAD_EVERY_S", 0.1)
        monkeypatch.setattr(lost_commits, "SIGN_S", 0.05)
        async with open_post(tmp_path) as first, first.worker():
            await buy(first, chats=2, runs=2)
        shutil.copytree(tmp_path / "data", tmp_path / "older")
        async with again(first) as second, second.worker():
            await buy(second, chats=3, runs=3)
            await until_kept(second.core)
            was = await books(second.core.db)
        shutil.rmtree(tmp_path / "data")
        shutil.copytree(tmp_path / "older", tmp_path / "data")

        async with again(first) as post:
            assert not post.core.db.lost
            async with post.worker():
                await bring_back(post, was, receipts=6, nothing_missing=False)
                await expect_work(post, linked=1)

    async def test_a_worker_keeps_what_it_holds_until_the_jobs_are_resumed(self, tmp_path: Path) -> None:
        """A lease that was open when the commits went missing: its answer is neither lost nor made twice."""
        async with AsyncExitStack() as staying:
            async with open_post(tmp_path) as first:
                await staying.enter_async_context(first.worker(engine=HELD, slots=1, name="held"))
                order = Order(first.buyer_id, "test", "chat", "trivial", b'{"max_tokens":20}', 20, True)
                job = await submit(first.core, order)
                async with asyncio.timeout(30):
                    while len(job.frames) < 10:
                        await asyncio.sleep(0.001)
                async with first.worker(name="one"):
                    save_database(first)
                    await buy(first, chats=1, runs=1)
            restore_database(first)

            async with again(first) as post, post.worker(name="one"):
                await post.until_linked(2)
                HeldEngine.go_on.set()
                await bring_back(post, None, receipts=2)

                async with asyncio.timeout(30):
                    while (await post.core.jobs.get(job.id)).state != JobState.COMPLETED:
                        await asyncio.sleep(0.01)
                frames, _ = await post.core.jobs.answer(job.id)
                assert "".join(frame.text for frame in frames) == " tok" * 20
                (attempt,) = await post.core.jobs.attempts(job.id)
                assert (attempt.tokens, attempt.end_frame) == (20, 20)
