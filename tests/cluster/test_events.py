"""Numbered events of several coordinators: no number twice, none missed, read at once wherever somebody follows."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from comptoir.cluster.messages import Message, News, Totals, encode
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.submit import submit
from comptoir.events import Follower, JobEnded, NumberedEvent
from comptoir.reports import audit
from tests.cluster.posts import Posts, open_posts, peers_of
from tests.cluster.test_any_coordinator import order, read
from tests.house.tree import ROOT
from tests.leftovers import mark
from tests.post import free_port
from tests.redis_server import RedisServer

SOON_S = 5.0
"""Less than a follower waits until it looks by itself."""


@pytest.fixture
async def posts(tmp_path: Path, postgres_address: str, redis_server: RedisServer) -> AsyncIterator[Posts]:
    async with open_posts(tmp_path, database=postgres_address, bus=redis_server.url) as opened:
        yield opened


async def following(posts: Posts, number: int) -> Follower:
    """Follow the buyer at one coordinator from now on, and wait until the other knows."""
    at = posts[number]
    follower = at.core.events.follow(at.buyer_id, after=await at.core.events.newest(at.buyer_id))
    sharing = peers_of(posts[1 - number].core).sharing
    await posts.until(lambda: at.core.node_id in sharing.followers())
    return follower


async def deposit(posts: Posts, number: int) -> None:
    await posts[number].core.ledger.deposit(owner_id=posts[number].buyer_id, amount_uusd=1)


async def next_of(follower: Follower) -> int:
    async with asyncio.timeout(SOON_S):
        return (await follower.next()).number


class TestNews:
    async def test_who_follows_hears_at_once_what_happens_elsewhere(self, posts: Posts) -> None:
        with await following(posts, 1) as follower:
            for count in range(3):
                await deposit(posts, 0)

                assert await next_of(follower) == 2 + count

    async def test_nothing_is_told_where_nobody_follows(self, posts: Posts, monkeypatch: pytest.MonkeyPatch) -> None:
        """So a coordinator of a version before, which never says that it does, is not sent what it can't read."""
        board, said = peers_of(posts[0].core).board, list[Message]()
        send = board.send
        monkeypatch.setattr(board, "send", lambda node_id, message: (said.append(message), send(node_id, message)))

        await deposit(posts, 0)
        await asyncio.sleep(0.1)
        assert not [message for message in said if isinstance(message, News)]

        with await following(posts, 1) as follower:
            await deposit(posts, 0)
            assert await next_of(follower) == 3
            await posts.until(lambda: News([(posts[0].buyer_id, 3)]) in said, within_s=SOON_S)
        assert len([message for message in said if isinstance(message, News)]) == 1

    async def test_lost_news_are_made_good_by_whatever_comes_next(
        self, posts: Posts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with await following(posts, 1) as follower:
            with monkeypatch.context() as losing:
                losing.setattr(peers_of(posts[0].core).sharing, "followers", list)
                await deposit(posts, 0)
                await asyncio.sleep(0.1)
            peers_of(posts[1].core).board._missed(posts[0].core.node_id)
            assert await next_of(follower) == 2

    def test_totals_are_read_by_a_version_that_knows_no_followers(self) -> None:
        class OldTotals(msgspec.Struct, array_like=True, frozen=True, tag="totals"):
            ended: dict[str, int]
            users: int
            chains: int = 0

        told = msgspec.msgpack.decode(encode([Totals({"completed": 1}, 2, 3, followed=4)]), type=list[OldTotals])

        assert told == [OldTotals({"completed": 1}, 2, 3)]


class TestNumbers:
    async def test_two_coordinators_that_settle_at_once_give_each_number_once(self, posts: Posts) -> None:
        """One owner's jobs end at both, while deposits come in at both; two readers, one at each, read the same."""
        jobs_each, deposits_each = 20, 10
        wanted = 2 * (jobs_each + deposits_each)
        with await following(posts, 0) as here, await following(posts, 1) as there:
            reading = [asyncio.create_task(self.take(follower, wanted)) for follower in (here, there)]
            async with posts[0].worker(name="one"), posts[1].worker(name="two"):
                for post in posts.each:
                    await posts.until_seen(post, free=16)
                await asyncio.gather(
                    *(self.buy(posts, number, jobs_each) for number in (0, 1)),
                    *(self.pay_in(posts, number, deposits_each) for number in (0, 1)),
                )
            async with asyncio.timeout(SOON_S):
                first, second = await asyncio.gather(*reading)

        assert [event.number for event in first] == list(range(2, 2 + wanted))
        assert first == second
        assert len({event.job_id for event in first if isinstance(event, JobEnded)}) == 2 * jobs_each

    async def take(self, follower: Follower, count: int) -> list[NumberedEvent]:
        return [await follower.next() for _ in range(count)]

    async def buy(self, posts: Posts, number: int, count: int) -> None:
        for _ in range(count):
            await read(await submit(posts[number].core, order(posts[number], tokens=1)))

    async def pay_in(self, posts: Posts, number: int, count: int) -> None:
        for _ in range(count):
            await deposit(posts, number)


class Dying:
    """A third coordinator, a process of its own, with a host that polls it."""

    def __init__(self, posts: Posts, *, database: str, bus: str) -> None:
        self._posts = posts
        self._arguments = [str(posts.folder / "data"), database, str(free_port()), bus]
        self.url = f"http://127.0.0.1:{self._arguments[2]}"
        self.ended = 0
        """Jobs whose end it has confirmed."""

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.journeys.coordinator",
            *self._arguments,
            cwd=ROOT,
            env={**mark(), "PYTHONPATH": f"{ROOT}/src:{ROOT}", "PATH": ""},
        )
        async with aiohttp.ClientSession() as session, asyncio.timeout(30):
            while not await self._healthy(session):
                await asyncio.sleep(0.02)

    async def _healthy(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}/health") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def live(self) -> None:
        """Buy jobs and answer them there, two at a time, until it is dead."""
        headers = {"authorization": f"Bearer {self._posts[0].buyer_key}"}
        async with aiohttp.ClientSession(self.url, headers=headers) as session:
            offer = {"gpu": "x", "models": ["polled"], "price_per_token": 0.000001, "slots": 4, "backend": "worker"}
            host = await self._post(session, "/hosts/register", offer)
            as_host = {"authorization": f"Bearer {host['api_key']}"}
            try:
                while True:
                    for _ in range(2):
                        bought = {"model": "polled", "input_text": "Explain.", "max_tokens": 4}
                        await self._post(session, "/run/model", bought)
                    for _ in range(2):
                        asked = {"host_id": host["host_id"], "wait_s": 2}
                        job = await self._post(session, "/hosts/next-job", asked, headers=as_host)
                        done = {"host_id": host["host_id"], "tokens": ["a", "b"]}
                        await self._post(session, f"/hosts/complete-job/{job['job_id']}", done, headers=as_host)
                        self.ended += 1
            except aiohttp.ClientError:
                return

    async def _post(self, session: aiohttp.ClientSession, path: str, body: Any, **named: Any) -> Any:
        async with session.post(path, json=body, **named) as answer:
            assert answer.status in (200, 201, 202), await answer.text()
            return await answer.json()


class TestDeath:
    async def test_a_reader_with_a_cursor_reads_every_end_once_though_a_coordinator_dies(
        self, tmp_path: Path, postgres_address: str, redis_server: RedisServer
    ) -> None:
        """It is killed between ends, of which it may have written some that it told nobody."""
        async with open_posts(
            tmp_path, database=postgres_address, bus=redis_server.url, count=1, requests_per_minute_per_key=1_000_000
        ) as posts:
            core, buyer = posts[0].core, posts[0].buyer_id
            dying = Dying(posts, database=postgres_address, bus=redis_server.url)
            await dying.start()
            read = list[NumberedEvent]()
            with core.events.follow(buyer, after=0) as follower:

                async def take() -> None:
                    async for event in follower:
                        read.append(event)

                reading = asyncio.create_task(take())
                living = asyncio.create_task(dying.live())
                await posts.until(lambda: dying.ended >= 20)
                await dying.kill()
                await living
                # What it left goes on here, where nobody can run it, until it is cancelled.
                await posts.until(lambda: not peers_of(core).board.here)
                await asyncio.sleep(0.2)
                for job in core.jobs.live.all():
                    await cancel(core, job)
                ended = await core.db.fetch("SELECT id FROM jobs WHERE state IN ('completed', 'cancelled')")
                ids = {bytes(row[0]) for row in ended}
                await posts.until(lambda: len(read) > len(ids), within_s=SOON_S)
                reading.cancel()

            assert dying.ended >= 20
            assert [event.number for event in read] == list(range(1, len(ids) + 2))
            told = [event.job_id for event in read if isinstance(event, JobEnded)]
            assert len(told) == len(ids) and set(told) == ids
            assert await audit(core.db) == []
