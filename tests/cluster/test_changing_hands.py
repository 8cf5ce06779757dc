"""Jobs that change hands while somebody asks for them: the reader of a mirror misses nothing, and is told what is not
so."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir.cluster import offers
from comptoir.cluster.messages import Batch, Ended, Gone, JobOffer
from comptoir.dispatch.assign import lease_on
from comptoir.dispatch.submit import submit
from comptoir.gateway import find_job, follow
from comptoir.gateway.readers import OpenStreams
from comptoir.jobs import RESTARTED, JobRow, JobState, Lease, LiveJob, Reader
from comptoir.kinds import Chat, Terms
from comptoir.kit.ids import new_id, public
from comptoir.link import Frame, Usage
from comptoir.receipts import read_registry, verify
from tests.cluster.posts import Posts, open_posts, peers_of
from tests.cluster.test_any_coordinator import TOKENS, calling, events, order, read
from tests.post import Post
from tests.redis_server import RedisServer


@pytest.fixture
async def posts(tmp_path: Path, postgres_address: str, redis_server: RedisServer) -> AsyncIterator[Posts]:
    async with open_posts(tmp_path, database=postgres_address, bus=redis_server.url) as opened:
        yield opened


def as_row(post: Post, job_id: bytes) -> JobRow:
    """A job as its owner would offer it."""
    return LiveJob(
        id=job_id,
        owner_id=post.buyer_id,
        dialect="infrintia",
        kind=Chat(),
        model="trivial",
        body=order(post).body,
        terms=Terms(50, TOKENS),
        detached=True,
        deadline_ms=post.core.clock.now_ms() + 60_000,
        created_ms=post.core.clock.now_ms(),
        submitted_s=0.0,
    ).as_row()


class TestChangingHands:
    async def test_who_asks_while_the_job_is_being_leased_here_reads_all_of_it(
        self, posts: Posts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A reader at the second coordinator, in the moment in which that one becomes the owner, waited for ever."""
        leasing, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(*arguments: Any, **named: Any) -> Lease:
            leasing.set()
            await go_on.wait()
            return await lease_on(*arguments, **named)

        monkeypatch.setattr(offers, "lease_on", slowly)
        async with posts[1].worker(options={"per_s": 200.0}):
            await posts.until_seen(posts[0], free=8)
            job = await submit(posts[0].core, order(posts[0]))
            await leasing.wait()

            reading = asyncio.create_task(events(posts[1], public("job", job.id)))
            await posts.until(lambda: posts[1].core.state(OpenStreams).of_job.get(job.id))
            go_on.set()

            async with asyncio.timeout(20):
                assert (await reading).count('data: {"token": " tok"}') == TOKENS

    async def test_who_read_of_an_answer_that_was_given_up_is_told_and_the_new_one_is_whole(self, posts: Posts) -> None:
        """The second coordinator still showed two frames of a host that is lost; they are no part of what it leases
        now."""
        async with posts[1].worker(options={"per_s": 200.0}):
            await posts.until_seen(posts[0], free=8)
            job_id = new_id()
            stale = posts[0].core.jobs.revived(as_row(posts[0], job_id), now_s=0.0)
            stale.append([Frame("old "), Frame("frames ")])
            mirrors = peers_of(posts[1].core).mirrors
            posts[1].core.jobs.live.add_mirror(stale, posts[0].core.node_id)
            # Just heard of, or it is looked up in the database, which has no such job yet, and forgotten.
            mirrors._heard_s[job_id] = asyncio.get_running_loop().time() + 60

            job = await submit(posts[0].core, msgspec.structs.replace(order(posts[0]), job_id=job_id))

            assert await read(job) == " tok" * TOKENS
            assert (stale.state, stale.error_code) == (JobState.FAILED, "answer_restarted")
            core = posts[1].core
            registry = read_registry(await core.receipts.registry())
            assert verify(await core.receipts.envelope_of(job_id), registry).ok

    async def test_who_brought_the_number_of_a_frame_of_an_answer_given_up_is_told(self, posts: Posts) -> None:
        """Reconnected here with frame 4 of the first try, before anybody here knew that there was a second."""
        core, owner = posts[0].core, posts[1].core.node_id
        job = posts[0].core.jobs.revived(as_row(posts[0], new_id()), now_s=0.0)
        mirrors = peers_of(core).mirrors
        core.jobs.live.add_mirror(job, owner)
        brought, fresh = Reader(job, start=5), Reader(job)

        items = [Frame(f"{number} ") for number in range(8)]
        mirrors._batch(owner, Batch(job.id, 0, items, JobState.RUNNING, None, 0, 1))

        assert await brought.next() is None and brought.outdated
        assert await fresh.next() == items and not fresh.outdated
        assert job.restarts == 1

    async def test_an_offer_that_comes_twice_is_leased_once(
        self, posts: Posts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The database was slow, so the job was offered again: the second try undid the first one's lease."""
        leasing, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(*arguments: Any, **named: Any) -> Lease:
            leasing.set()
            await go_on.wait()
            return await lease_on(*arguments, **named)

        monkeypatch.setattr(offers, "lease_on", slowly)
        async with posts[1].worker():
            await posts.until_seen(posts[0], free=8)
            board, sent = peers_of(posts[0].core).board, []
            send = board.send
            monkeypatch.setattr(board, "send", lambda node_id, message: (sent.append(message), send(node_id, message)))
            job = await submit(posts[0].core, order(posts[0]))
            await leasing.wait()
            (offer,) = [message for message in sent if isinstance(message, JobOffer)]
            send(posts[1].core.node_id, offer)
            await asyncio.sleep(0.3)
            go_on.set()

            async with asyncio.timeout(20):
                assert await read(job) == " tok" * TOKENS
            assert job.state == JobState.COMPLETED


class TestBegunAnew:
    async def test_whoever_has_seen_nothing_of_it_is_given_the_new_answer(self, posts: Posts) -> None:
        """A whole answer waits for its end; that the mirror it waits at was broken off is nothing to tell its buyer."""
        async with posts[1].worker(options={"per_s": 40.0}):
            await posts.until_seen(posts[0], free=8)
            body = {"model": "trivial", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
            async with calling(posts[0]) as session:
                asked = asyncio.create_task(session.post("/v1/chat/completions", json=body))
                mirrors = posts[0].core.jobs.live.mirrors
                await posts.until(lambda: any(job.frames for job in mirrors.values()))

                peers_of(posts[0].core).mirrors._break_off(next(iter(mirrors.values())))

                answer = await asyncio.wait_for(asked, 20)
                told = await answer.json()
            assert answer.status == 200, told
            assert told["choices"][0]["message"]["content"] == " tok" * 20

    async def test_a_stream_that_has_shown_nothing_yet_begins_with_it(self, posts: Posts) -> None:
        async with posts[1].worker(options={"per_s": 2.0}):
            await posts.until_seen(posts[0], free=8)
            body = {
                "model": "trivial",
                "messages": [{"role": "user", "content": "hi"}],
                "max_tokens": 2,
                "stream": True,
            }
            async with calling(posts[0]) as session:
                asked = asyncio.create_task(session.post("/v1/chat/completions", json=body))
                mirrors = posts[0].core.jobs.live.mirrors
                await posts.until(lambda: any(job.watched for job in mirrors.values()))

                peers_of(posts[0].core).mirrors._break_off(next(iter(mirrors.values())))

                answer = await asyncio.wait_for(asked, 20)
                told = await answer.text()
            assert told.count(" tok") == 2
            assert told.endswith("data: [DONE]\n\n")

    async def test_a_stream_that_has_shown_some_is_told_and_nobody_pays_for_the_new_one(self, posts: Posts) -> None:
        """It can't be asked for again, so what the job goes on to be has no reader: it is cancelled where it is."""
        async with posts[1].worker(options={"per_s": 10.0}):
            await posts.until_seen(posts[0], free=8)
            body = {
                "model": "trivial",
                "messages": [{"role": "user", "content": "hi"}],
                "max_tokens": 200,
                "stream": True,
            }
            async with calling(posts[0]) as session:
                answer = await session.post("/v1/chat/completions", json=body)
                while b" tok" not in await answer.content.readline():
                    pass
                mirrors = posts[0].core.jobs.live.mirrors
                (job_id,) = mirrors
                peers_of(posts[0].core).mirrors._break_off(mirrors[job_id])

                assert "answer_restarted" in await asyncio.wait_for(answer.text(), 20)
                job = posts[1].core.jobs.live.seen(job_id)  # It may be over by now.
                assert job is not None
                await asyncio.wait_for(job.ended(), 10)
        assert (job.state, len(job.frames) < 100) == (JobState.CANCELLED, True)


class TestPassedOn:
    """A job moves on while a third coordinator follows it at the second, whose own it was: a mirror is followed."""

    @pytest.mark.parametrize("start", [0, 1, 9])
    async def test_where_its_readers_are_ended_those_elsewhere_are_told_to_look_for_it(
        self, posts: Posts, monkeypatch: pytest.MonkeyPatch, start: int
    ) -> None:
        core, elsewhere = posts[0].core, posts[1].core.node_id
        job = core.jobs.revived(as_row(posts[0], new_id()), now_s=0.0)
        job.append([Frame("one ")] * min(start, 1))
        core.jobs.live.add_mirror(job, elsewhere)
        cluster, said = peers_of(core), []
        send = cluster.board.send

        def heard(node_id: bytes, message: Any) -> None:
            said.append(message) if getattr(message, "job_id", None) == job.id else send(node_id, message)

        monkeypatch.setattr(cluster.board, "send", heard)
        cluster.mirrors.serve(elsewhere, job, start=start, running_hash=job.running_hash)
        await asyncio.sleep(0)

        cluster.mirrors._break_off(job)
        await posts.until(lambda: not cluster.mirrors._served)

        assert said == [Gone(job.id)]

    async def test_an_older_one_that_says_it_is_the_end_is_not_believed(self, posts: Posts) -> None:
        """It was taken for the end of the job, and who waited for a whole answer asked for it again, without a pause,
        for ever."""
        async with posts[1].worker(options={"per_s": 100.0}):
            await posts.until_seen(posts[1], free=8)
            job = await submit(posts[1].core, order(posts[1]))
            core, owner = posts[0].core, posts[1].core.node_id
            mirror = await follow(core, await find_job(core, None, public("job", job.id)))
            await posts.until(lambda: mirror.frames)

            code, message = RESTARTED
            ended = Ended(
                job.id, "failed", len(mirror.frames), 0, Usage(), "", "", code, message, 502, b"", 0.0, None, 0
            )
            peers_of(core).mirrors._ended(owner, ended)

            assert not mirror.over
            async with asyncio.timeout(20):
                assert await read(mirror) == " tok" * TOKENS
            assert mirror.state == JobState.COMPLETED
