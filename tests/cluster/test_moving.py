"""What moves between coordinators: workers with open leases, the jobs of those who fell silent, readers of both."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from comptoir.cluster import failover
from comptoir.dispatch import watch
from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.duties import Duties, Duty
from comptoir.dispatch.submit import submit
from comptoir.jobs import Fault, JobState
from comptoir.kit.errors import Unavailable
from comptoir.kit.ids import public
from comptoir.nodes import NODE_SILENT_S
from comptoir.transports.link import say_goodbye
from tests.cluster.posts import Posts, open_posts, peers_of
from tests.cluster.test_any_coordinator import events, open_ended, order, read
from tests.post import Post
from tests.redis_server import RedisServer


@pytest.fixture
async def posts(tmp_path: Path, postgres_address: str, redis_server: RedisServer) -> AsyncIterator[Posts]:
    async with open_posts(tmp_path, database=postgres_address, bus=redis_server.url) as opened:
        yield opened


async def fall_silent(post: Post) -> Callable[[], None]:
    """Let a coordinator give no sign of life, as one that is stopped or cut from the database; returns what ends it.

    Nobody waits until it has been silent for long enough: its last sign of life is as old as that.
    """
    nodes = post.core.nodes
    beat = nodes.beat

    async def no_beat() -> None:
        raise Unavailable("cut off")

    nodes.beat = no_beat  # type: ignore[method-assign, assignment]
    older = "UPDATE nodes SET seen_ms = seen_ms - ? WHERE id = ?"
    await post.core.db.run(lambda tx: tx.execute(older, [int(NODE_SILENT_S * 1000), post.core.node_id]))
    peers_of(post.core).failover._beaten_s -= NODE_SILENT_S

    def again() -> None:
        nodes.beat = beat  # type: ignore[method-assign]

    return again


async def linked_first(posts: Posts) -> list[Post]:
    """Wait for the worker's link; return the coordinators, the one it is linked to first."""
    await posts.until(lambda: any(post.core.channels for post in posts.each))
    return sorted(posts.each, key=lambda post: not post.core.channels)


class TestWorkerMoves:
    async def test_its_open_answers_come_along(self, posts: Posts) -> None:
        """The worker leaves one coordinator in the middle of answers and links to the other: nothing is lost or
        doubled."""
        both = (posts[0].url, posts[1].url)
        async with posts[0].worker(options={"per_s": 100.0, "tokens": 80}, urls=both):
            first, second = await linked_first(posts)
            orders = [order(first, tokens=80), open_ended(first, step=30)]
            jobs = [await submit(first.core, each) for each in (*orders, *orders)]
            reading = [asyncio.create_task(read(job)) for job in jobs]
            await posts.until(lambda: all(len(job.frames) > 10 for job in jobs))

            await say_goodbye(first.core, reason="go to the other", reconnect_after_s=0.0)

            assert await asyncio.wait_for(asyncio.gather(*reading), 20) == [" tok" * 80] * 4
            assert len(second.core.channels) == 1
        for job in jobs:
            attempts = await posts[1].core.jobs.attempts(job.id)
            assert [attempt.state for attempt in attempts] == ["done"]
            assert job.state == JobState.COMPLETED

    async def test_who_reads_at_the_second_goes_on_too(self, posts: Posts) -> None:
        both = (posts[0].url, posts[1].url)
        async with posts[0].worker(options={"per_s": 100.0}, urls=both):
            first, second = await linked_first(posts)
            job = await submit(first.core, order(first, tokens=80))
            here = asyncio.create_task(events(first, public("job", job.id)))
            there = asyncio.create_task(events(second, public("job", job.id)))
            await posts.until(lambda: len(job.frames) > 20)

            await say_goodbye(first.core, reason="go to the other", reconnect_after_s=0.0)

            told_here, told_there = await asyncio.wait_for(asyncio.gather(here, there), 20)
        assert told_here == told_there
        assert told_here.count('data: {"token": " tok"}') == 80


class TestNewcomer:
    async def test_whose_client_waits_for_a_job_is_looked_up_where_it_is_not_known_yet(self, posts: Posts) -> None:
        """Its first job moved on within its first second, and was ended where it came: "the coordinator restarted"."""
        async with posts[0].worker(name="gone"):
            await posts.until_seen(posts[0])
        home, there = posts[0].core, posts[1].core
        job = await submit(home, order(posts[0], detached=False))
        cluster = peers_of(there)
        row = await there.jobs.claim(job.id, node_id=there.node_id, from_id=home.node_id)
        assert row is not None
        # As before its first beat since the other began; the next one is up to a second away.
        cluster.board.here = frozenset()
        cluster.failover.nodes = [node for node in cluster.failover.nodes if node.id != home.node_id]

        await cluster.mirrors.resume_job(row)

        taken = there.jobs.live.get(job.id)
        assert taken is not None and taken.state == JobState.QUEUED
        assert cluster.board.here == {home.node_id}
        await there.peers.ensure_known(nobody := b"nobody".ljust(16))
        assert not there.peers.is_alive(nobody)
        await cancel(there, taken, reason="a test")


class TestSilence:
    async def test_its_waiting_jobs_are_taken_over_and_its_readers_served(self, posts: Posts) -> None:
        async with posts[0].worker(name="gone"):
            pass
        job = await submit(posts[0].core, order(posts[0]))
        reading = asyncio.create_task(read(job))
        again = await fall_silent(posts[0])
        async with posts[1].worker(name="comes"):
            # Still alive on the bus, it would hand the job over; a stopped one could not.
            text = await asyncio.wait_for(reading, 20)
        again()
        assert text == " tok" * 20
        assert job.state == JobState.COMPLETED

    async def test_back_from_a_pause_it_finds_what_was_taken_and_writes_nothing_of_it(
        self, posts: Posts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with posts[0].worker(options={"per_s": 5.0}, slots=1, name="first"):
            running = await submit(posts[0].core, order(posts[0], tokens=2000))
            await posts.until(lambda: running.frames)
            lease = running.lease
            again = await fall_silent(posts[0])
            await posts.until(lambda: posts[1].core.jobs.live.get(running.id) is not None, within_s=15)

            # What it would still write is refused by the database, whatever it believes.
            if running.lease is lease and lease is not None:
                await revoke_lease(posts[0].core, running, lease, "a test", fault=Fault.HOST)

            assert posts[0].core.jobs.live.get(running.id) is None
            assert posts[0].core.jobs.live.seen(running.id) is running
            again()
            taken = posts[1].core.jobs.live.get(running.id)
            assert taken is not None
            reading = asyncio.create_task(read(running))
            await peers_of(posts[0].core).mirrors.look()
            # The first host is not linked where the job is now, and nobody waits for it.
            monkeypatch.setattr(watch, "RELINK_S", 0.1)
            async with posts[1].worker(name="second"):
                await asyncio.wait_for(reading, 30)


class TestNeverSent:
    async def test_a_host_that_linked_here_without_the_job_may_have_it_at_once(
        self, posts: Posts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its coordinator died between writing the lease and sending the job: nobody waits for frames that can't
        come."""
        async with posts[0].worker(urls=(posts[0].url, posts[1].url)):
            first, second = await linked_first(posts)
            (line,) = first.core.channels.values()
            monkeypatch.setattr(line, "send_job", lambda job, lease: True)
            job = await submit(first.core, order(first))
            again = await fall_silent(first)
            await say_goodbye(first.core, reason="go to the other", reconnect_after_s=0.0)

            # Its lease alone would last for 30 s, and the only host there is be blamed.
            async with asyncio.timeout(20):
                while (await second.core.jobs.get(job.id)).state != JobState.COMPLETED:
                    await asyncio.sleep(0.1)
        again()
        attempts = await second.core.jobs.attempts(job.id)
        assert [(one.state, one.fault) for one in attempts] == [("lost", Fault.COORDINATOR), ("done", None)]


class TestKeptEnd:
    async def test_one_that_is_taken_over_meanwhile_gives_its_slot_back_once(self, posts: Posts) -> None:
        """The end waits for the database with its lease open and its slot free; then the job is somebody else's."""
        core = posts[0].core
        async with posts[0].worker(options={"per_s": 5.0}, slots=1, name="first"):
            job = await submit(core, order(posts[0], tokens=2000))
            await posts.until(lambda: job.frames)
            lease = job.lease
            assert lease is not None
            # As dispatch.settle leaves it while PostgreSQL is away.
            job.begin_closing()
            core.fleet.release(lease.host_id)
            assert core.jobs.live.slots_of(lease.host_id) == 0

            peers_of(core).mirrors.become_mirror(job, posts[1].core.node_id)

            assert core.fleet.get(lease.host_id).slots.running == 0
            assert job.lease is None and core.jobs.live.seen(job.id) is job


class TestLook:
    async def test_one_that_fails_makes_a_coordinator_unhealthy_until_one_succeeds(
        self, posts: Posts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nobody would take over from one that dies."""
        core = posts[0].core
        caplog.set_level(logging.CRITICAL)
        monkeypatch.setattr(failover, "BEAT_S", 0.02)

        async def breaks() -> None:
            raise ValueError("planted")

        with monkeypatch.context() as broken:
            broken.setattr(peers_of(core).failover._mirrors, "look", breaks)
            await posts.until(lambda: Duty.CLUSTER in core.state(Duties).failing)
        await posts.until(lambda: not core.state(Duties).failing)


class TestWithoutBus:
    async def test_waiting_jobs_and_ends_are_found_in_the_database(
        self, posts: Posts, redis_server: RedisServer
    ) -> None:
        async with posts[0].worker(name="gone"):
            pass
        redis_server.kill()
        await posts.until(lambda: not any(peers_of(core).board.up for core in posts.cores))
        job = await submit(posts[0].core, order(posts[0]))
        reading = asyncio.create_task(read(job))

        async with posts[1].worker(name="comes"):
            assert await asyncio.wait_for(reading, 20) == " tok" * 20

        assert job.state == JobState.COMPLETED
        redis_server.start()
        await posts.until(lambda: all(peers_of(core).board.up for core in posts.cores))

    async def test_own_hosts_answer_as_always(self, posts: Posts, redis_server: RedisServer) -> None:
        async with posts[0].worker():
            redis_server.kill()
            await posts.until(lambda: not peers_of(posts[0].core).board.up)

            assert await read(await submit(posts[0].core, order(posts[0]))) == " tok" * 20


class TestWithoutDatabase:
    async def test_a_worker_with_answers_of_another_coordinator_comes_again(self, posts: Posts) -> None:
        """Whose they are can't be known just now; told that they are nobody's, it would throw its frames away."""
        both = (posts[0].url, posts[1].url)
        async with posts[0].worker(options={"per_s": 50.0}, urls=both):
            first, second = await linked_first(posts)
            job = await submit(first.core, order(first, tokens=100))
            reading = asyncio.create_task(read(job))
            await posts.until(lambda: len(job.frames) > 5)
            asked = asyncio.Event()
            claim = second.core.jobs.claim_leases

            async def away(*given: object, **named: object) -> None:
                asked.set()
                raise Unavailable("the database is out of reach", retry_after_s=0.1)

            second.core.jobs.claim_leases = away  # type: ignore[method-assign, assignment]
            await say_goodbye(first.core, reason="go to the other", reconnect_after_s=0.0)
            await asyncio.wait_for(asked.wait(), 10)
            second.core.jobs.claim_leases = claim  # type: ignore[method-assign]

            assert await asyncio.wait_for(reading, 20) == " tok" * 100
        assert [attempt.state for attempt in await first.core.jobs.attempts(job.id)] == ["done"]


class TestClocks:
    async def test_a_deadline_is_the_same_moment_for_all(self, posts: Posts, monkeypatch: pytest.MonkeyPatch) -> None:
        """One coordinator's clock is hours back: what it takes over still ends when its buyer was told it would."""
        late = posts[1].core
        now_ms = late.clock.now_ms
        monkeypatch.setattr(late.clock, "now_ms", lambda: now_ms() - 6 * 3_600_000)

        await late.nodes.measure(late.clock.now_ms)

        assert abs(late.common_ms() - posts[0].core.common_ms()) < 2_000
        async with posts[1].worker(name="gone"):
            pass
        job = await submit(late, order(posts[1]))
        assert abs(job.deadline_ms - posts[0].core.common_ms() - 900_000) < 5_000
        await cancel(late, job)
