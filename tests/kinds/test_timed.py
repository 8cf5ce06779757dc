"""Work that is sold by the time it takes: a host is believed no more of it than passed at the coordinator.

The same rule for worker, coordinator and verifier (`comptoir.kinds.timed`), also where the lease outlives the process
that gave it.
"""

import asyncio
import re
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from click.testing import CliRunner

from comptoir.cli.main import program
from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.expire import sweep
from comptoir.dispatch.meters import Meters
from comptoir.dispatch.onboard import add_host
from comptoir.dispatch.recover import resume_job
from comptoir.dispatch.stream import complete, take_frames
from comptoir.dispatch.submit import Order, submit
from comptoir.hosts import LINK, POLL, NewHost
from comptoir.jobs import Fault, JobState, LiveJob
from comptoir.kinds import Kinds
from comptoir.kinds.files import FileKind, WorkProgress, file_frame
from comptoir.kinds.timed import most_in
from comptoir.kit.db import Database
from comptoir.kit.errors import InvalidField, Unavailable
from comptoir.kit.signing import SigningKey
from comptoir.link import COUNT_MAX, LINK_VERSION, Frame, Hello, Usage
from comptoir.receipts import Predicate, Reason, Verdict, read_registry, verify
from comptoir.receipts.build import build
from comptoir.receipts.testing import make_facts, make_key, make_published_key, make_segment
from comptoir.receipts.types import ReceiptFacts
from comptoir.receipts.verify import envelope, registry_of
from comptoir.reports import audit
from comptoir.transports.link import say_goodbye
from comptoir.transports.link.session import Session
from comptoir.transports.native import NATIVE
from comptoir.worker.leases import WorkerLease, as_believed
from tests.cluster.posts import open_posts
from tests.dialects.infrintia.conftest import market_of
from tests.dispatch.continuing import earned, lease_of
from tests.kinds.ends import pay_of, sign
from tests.kinds.toys import Drawing, RunAgain, Timed, buy, offer, selling
from tests.post import Post, open_post
from tests.redis_server import RedisServer
from tests.street import FakeChannel, Street
from tests.transports.native_host import b64, register
from tests.worker.coordinator_stand_in import make_job

TARGET = "tests.kinds.toys:Timed"
ENGINE = "tests.kinds.timed_engine:TimedEngine"
KINDS = Kinds((Timed,))
BODY = b'{"wall_s": 60, "cores": 2}'
MOST = 60_000
AGAIN = offer(Timed, uusd=1, more=2, can_continue=True)
"""A micro-dollar for a millisecond, and two for one of a core."""

TOOK = 5.0
SLACK = 5 + 10
"""What is believed beyond five seconds: one in a thousand, and ten."""


def result(count: int, *, ends: bool = True) -> Frame:
    fields: dict[str, Any] = {"result": msgspec.Raw(b"0.5")}
    return file_frame("", count, **fields, **({"finish_reason": "stop"} if ends else {}))


def say(street: Street, job: LiveJob, *frames: Frame) -> None:
    take_frames(street.core, job, len(job.frames), list(frames))


async def hosted(street: Street, transport: str, key: SigningKey) -> bytes:
    speaks = NATIVE if transport == POLL else None
    new = NewHost(gpu="x", models=(AGAIN,), slots=1, transport=transport, speaks=speaks, public_key=key.public_key)
    host_id = (await add_host(street.core, new)).host_id
    street.link(host_id, FakeChannel())
    return host_id


async def no_database(*_: Any, **__: Any) -> None:
    raise Unavailable("the database is away")


async def begun(street: Street, **fields: Any) -> LiveJob:
    return await buy(street, Timed, most=MOST, body=BODY, **fields)


async def finish(street: Street, job: LiveJob, count: int, *, busy: int = 0, key: SigningKey | None = None) -> None:
    usage = Usage(busy, count)
    signature = sign(job, key, usage) if key is not None else b""
    running_hash = job.running_hash if key is not None else b""
    await complete(street.core, job, finish_reason="stop", usage=usage, signature=signature, running_hash=running_hash)


async def receipt(street: Street, job: LiveJob) -> Predicate:
    """Return the job's receipt, verified offline by whoever has the kind."""
    core = street.core
    envelope_json = await core.receipts.envelope_of(job.id)
    verdict = verify(envelope_json, read_registry(await core.receipts.registry()), core.jobs.kinds)
    assert verdict.ok and verdict.unbounded_segments == 0 and verdict.statement is not None, verdict
    assert await audit(core.db) == []
    return verdict.statement.predicate


class TestOneHost:
    @pytest.mark.parametrize("transport", [LINK, POLL])
    @pytest.mark.parametrize(
        ("frames", "busy", "counts", "claims", "blamed"),
        [
            ([result(5_000)], 9_000, (9_000, 5_000), (None, None), False),
            ([result(5_000 + SLACK)], 0, (0, 5_000 + SLACK), (None, None), False),
            ([result(5_001 + SLACK)], 0, (0, 5_000 + SLACK), (None, 5_001 + SLACK), True),
            ([result(MOST)], 0, (0, 5_000 + SLACK), (None, MOST), True),
            # Two cores for five seconds are ten.
            ([result(5_000)], 2 * (5_000 + SLACK), (2 * (5_000 + SLACK), 5_000), (None, None), False),
            ([result(5_000)], 2 * (5_000 + SLACK) + 1, (2 * (5_000 + SLACK), 5_000), (10_031, None), True),
            ([result(1_000)], COUNT_MAX, (2 * (1_000 + 1 + 10), 1_000), (COUNT_MAX, None), True),
            # Nothing delivered, nothing paid: neither for time, nor for cores.
            ([Frame("", 5_000)], 9_000, (20, 0), (9_000, 5_000), True),
        ],
        ids=["honest", "rounded", "a bit more", "a minute", "busy", "a bit busier", "busy for ever", "empty"],
    )
    async def test_is_paid_for_the_time_that_passed(
        self,
        tmp_path: Path,
        transport: str,
        frames: list[Frame],
        busy: int,
        counts: tuple[int, int],
        claims: tuple[int | None, int | None],
        blamed: bool,
    ) -> None:
        key = SigningKey.generate()
        async with selling(tmp_path) as street:
            host = await hosted(street, transport, key)
            job = await begun(street)
            street.clock.advance(seconds=TOOK)
            say(street, job, *frames)
            # Time that passes afterwards, such as until the end is heard, is nobody's work.
            street.clock.advance(seconds=20)

            await finish(street, job, sum(frame.tokens for frame in frames), busy=busy, key=key)

            delivered = counts[1] > 0
            cost = delivered * (counts[1] + 2 * counts[0])
            assert (job.state, job.cost_uusd) == (JobState.COMPLETED, cost)
            assert (job.usage.prompt_tokens, job.usage.completion_tokens) == counts
            row = await street.core.jobs.get(job.id)
            assert (row.prompt_tokens, row.completion_tokens) == counts
            said = await receipt(street, job)
            (segment,) = said.segments
            assert segment.passed_ms == 5_000
            assert [(unit.count, unit.claimed) for unit in segment.units] == list(zip(counts, claims, strict=True))
            assert [(unit.most, unit.cores) for unit in said.units] == [(2 * MOST, 2), (None, None)]
            assert await earned(street, host) == pay_of(cost)
            story = street.core.fleet.explain_reputation(host)
            assert (story.jobs_done, story.jobs_failed) == (not blamed, blamed)

    async def test_that_is_busier_than_was_agreed_is_paid_for_that_and_did_nothing_wrong(self, tmp_path: Path) -> None:
        """A limit is noticed a little after it was passed."""
        async with selling(tmp_path) as street:
            host, _ = await street.host(offer=AGAIN)
            body = b'{"wall_s": 60, "cores": 2, "busy_ms": 4000}'
            job = await buy(street, Timed, most=MOST, body=body)
            street.clock.advance(seconds=TOOK)
            say(street, job, result(5_000))

            await finish(street, job, 5_000, busy=4_100)

            assert (job.usage.prompt_tokens, job.cost_uusd) == (4_100, 5_000 + 2 * 4_000)
            said = await receipt(street, job)
            assert (said.units[0].count, said.units[0].most) == (4_100, 4_000)
            assert street.core.fleet.explain_reputation(host).jobs_failed == 0

    async def test_what_it_counts_early_is_bounded_by_when_it_came(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            await street.host(offer=AGAIN)
            job = await begun(street)
            street.clock.advance(seconds=1)
            say(street, job, Frame("", 5_000))
            street.clock.advance(seconds=TOOK - 1)
            say(street, job, result(0))

            await finish(street, job, 5_000)

            assert (job.cost_uusd, (await receipt(street, job)).segments[0].passed_ms) == (1_011, 1_000)

    async def test_that_never_got_the_job_has_its_time_from_when_it_did(self, tmp_path: Path) -> None:
        """Its link dropped with the job on its way, and it is sent once more."""
        async with selling(tmp_path) as street:
            host, _ = await street.host(offer=AGAIN)
            job = await begun(street)
            street.clock.advance(seconds=8)
            session = Session(street.core, street.core.fleet.get(host), None)  # type: ignore[arg-type]
            assert len(session._compare(Hello(LINK_VERSION, "test", 1, [AGAIN], []))[1]) == 1
            street.clock.advance(seconds=1)
            say(street, job, result(9_000))

            await finish(street, job, 9_000)

            assert job.cost_uusd == 1_011

    async def test_that_holds_the_lease_through_a_cut_has_all_of_its_time(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            host, _ = await street.host(offer=AGAIN)
            job = await begun(street)
            street.unlink(host)
            street.clock.advance(seconds=TOOK)
            street.link(host, FakeChannel())
            say(street, job, result(5_000))

            await finish(street, job, 5_000)

            assert job.cost_uusd == 5_000

    async def test_counts_in_the_metrics_what_could_have_passed(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            await street.host(offer=AGAIN)
            job = await begun(street)
            street.clock.advance(seconds=TOOK)
            say(street, job, result(MOST))

            assert street.core.state(Meters).units == {"work_ms": 5_000 + SLACK}

    async def test_whose_lease_could_not_be_closed_keeps_the_time_of_what_it_delivered(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with selling(tmp_path) as street:
            await street.host(offer=AGAIN)
            await street.host(offer=AGAIN)
            job = await begun(street)
            street.clock.advance(seconds=TOOK)
            say(street, job, result(5_000, ends=False))
            with monkeypatch.context() as patched:
                patched.setattr(Database, "batch", no_database)
                with pytest.raises(Unavailable):
                    await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)

            assert (job.count, job.passed_ms) == (5_000, 5_000)


class TestLost:
    async def test_half_way_it_has_earned_nothing_and_the_next_begins_again(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            first, _ = await street.host(offer=AGAIN)
            second, _ = await street.host(offer=AGAIN)
            job = await begun(street)
            street.clock.advance(seconds=3)
            say(street, job, file_frame("half\n", stream="stdout"), file_frame(progress=WorkProgress(0.5)))

            await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)
            street.clock.advance(seconds=TOOK)
            say(street, job, file_frame(begun_again=True), result(5_000))
            await finish(street, job, 5_000)

            assert (await earned(street, first), await earned(street, second)) == (0, pay_of(5_000))
            said = await receipt(street, job)
            assert [(part.passed_ms, part.units[1].count) for part in said.segments] == [(0, 0), (5_000, 5_000)]

    async def test_having_claimed_more_than_passed_it_takes_nothing_from_the_next(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            first, _ = await street.host(offer=AGAIN)
            second, _ = await street.host(offer=AGAIN)
            job = await begun(street)
            street.clock.advance(seconds=1)
            say(street, job, result(MOST, ends=False))

            await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.CAPACITY)
            assert job.claimed_beyond == MOST - 1_011
            street.clock.advance(seconds=50)
            say(street, job, result(50_000))
            await finish(street, job, 50_000)

            assert (await earned(street, first), await earned(street, second)) == (pay_of(1_011), pay_of(50_000))
            said = await receipt(street, job)
            assert [unit.claimed for part in said.segments for unit in part.units[1:]] == [MOST, None]
            assert street.core.fleet.explain_reputation(first).jobs_failed == 1


class TestAnotherProcess:
    """A lease is older than the process that has it now: its time goes on by the clock that all coordinators share."""

    @pytest.mark.parametrize(
        ("ago_ms", "claimed", "least", "most"),
        [(5_000, 5_000, 5_000, 5_000), (5_000, MOST, 5_000, 30_000), (-3_600_000, 5_000, 10, 10)],
        ids=["honest", "lying", "a clock set back"],
    )
    async def test_it_has_no_more_time_than_passed_since_it_began(
        self, tmp_path: Path, database_address: str, ago_ms: int, claimed: int, least: int, most: int
    ) -> None:
        kinds = {"kinds": (TARGET,), "database": database_address}
        async with selling(tmp_path, **kinds) as street:
            host, _ = await street.host(offer=AGAIN)
            job, buyer = await begun(street), street.buyer_id
            street.clock.advance(seconds=2)
            say(street, job, file_frame(progress=WorkProgress(0.1)))
            older = "UPDATE attempts SET started_ms = started_ms - ?"
            await street.core.db.run(lambda tx: tx.execute(older, [ago_ms]))

        async with selling(tmp_path, buyer=buyer, **kinds) as street:
            revived = street.core.jobs.live.get(job.id)
            assert revived is not None and lease_of(revived).revived
            say(street, revived, file_frame(progress=WorkProgress(0.1)), result(claimed))
            await finish(street, revived, claimed)

            said = await receipt(street, revived)
            assert least <= said.segments[0].units[1].count <= most
            # Whose clock it was that went wrong, is not known: it is cut, and nobody is blamed.
            assert street.core.fleet.explain_reputation(host).jobs_failed == 0

    async def test_what_was_believed_of_a_lost_host_stays_as_it_was(
        self, tmp_path: Path, database_address: str
    ) -> None:
        kinds = {"kinds": (TARGET,), "database": database_address}
        async with selling(tmp_path, **kinds) as street:
            await street.host(offer=AGAIN)
            await street.host(offer=AGAIN)
            job, buyer = await begun(street), street.buyer_id
            street.clock.advance(seconds=1)
            say(street, job, result(MOST, ends=False))
            street.clock.advance(seconds=30)  # Until it was noticed.
            await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)

        async with selling(tmp_path, buyer=buyer, **kinds) as street:
            revived = street.core.jobs.live.get(job.id)
            assert revived is not None and revived.count == 1_011
            street.clock.advance(seconds=TOOK)
            say(street, revived, result(5_000))
            await finish(street, revived, 5_000)

            said = await receipt(street, revived)
            assert [part.units[1].count for part in said.segments] == [1_011, 5_000]
            assert revived.cost_uusd == 6_011

    async def test_frames_that_were_shown_here_before_have_the_time_until_it_came_here(self, tmp_path: Path) -> None:
        """Its worker won't send them again, so nobody sees them come."""
        async with selling(tmp_path) as street:
            await street.host(offer=AGAIN)
            job = await begun(street)
            street.clock.advance(seconds=TOOK)
            say(street, job, result(5_000, ends=False))
            street.core.jobs.live.become_mirror(job, b"another".ljust(16))

            street.clock.advance(seconds=1)

            street.core.jobs.live.adopt(job)
            row = await street.core.jobs.get(job.id)
            taken = await resume_job(street.core, row, known=job)

            assert taken is job and (job.passed_ms, job.count) == (6_000, 5_000)

    async def test_a_lease_begins_by_the_clock_that_all_share(self, tmp_path: Path) -> None:
        """That of this coordinator may be wrong by hours, and nobody could tell once it is gone."""
        async with selling(tmp_path) as street:
            street.core.nodes.ahead_ms = -3_600_000
            await street.host(offer=AGAIN)
            await street.host(offer=offer(RunAgain, name="r"))
            timed, other = await begun(street), await buy(street, RunAgain, most=1, name="r")

            now_ms = street.clock.now_ms()
            assert (lease_of(timed).started_ms, lease_of(other).started_ms) == (now_ms - 3_600_000, now_ms)


class TestSilence:
    @pytest.mark.parametrize(
        ("begun_before", "silent_s", "moves"),
        [(True, 4.9, False), (True, 5.1, True), (False, 9.9, False), (False, 10.1, True)],
    )
    async def test_of_seconds_is_not_normal_for_it(
        self, tmp_path: Path, begun_before: bool, silent_s: float, moves: bool
    ) -> None:
        """However long a result takes, its engine shows all the time that it lives."""
        async with selling(tmp_path) as street:
            first, _ = await street.host(offer=AGAIN)
            await street.host(offer=AGAIN)
            job = await begun(street)
            street.clock.advance(seconds=1)
            if begun_before:
                say(street, job, file_frame(progress=WorkProgress(0.1)))
            else:
                silent_s -= 1
            street.clock.advance(seconds=silent_s)
            for host in street.core.fleet:
                street.core.fleet.seen(host.id)

            await sweep(street.core)

            assert (lease_of(job).host_id != first) is moves

    @pytest.mark.parametrize("kind", [Timed, Drawing])
    async def test_is_broken_by_progress_for_as_long_as_it_takes(self, tmp_path: Path, kind: type[FileKind]) -> None:
        """Also where progress is no output, so that by itself it would only show that the input is being read."""
        sold = offer(kind, uusd=1, more=2, can_continue=True)
        async with selling(tmp_path) as street:
            first, _ = await street.host(offer=sold)
            await street.host(offer=sold)
            job = await buy(street, kind, most=MOST, body=BODY)
            for step in range(50):
                street.clock.advance(seconds=4)
                for host in street.core.fleet:
                    street.core.fleet.seen(host.id)
                say(street, job, file_frame(progress=WorkProgress(step / 50)), Frame("", 0))
                await sweep(street.core)

            assert lease_of(job).host_id == first
            # How often it says so is no measure of how fast it is: routing would give it everybody's work.
            assert not street.core.fleet.pace(first, "m").measured


class TestDeadline:
    async def test_grants_what_the_order_asks_for_beside_what_every_job_may_wait(self, tmp_path: Path) -> None:
        async with selling(tmp_path, job_ttl_s=100.0) as street:
            await street.host(offer=AGAIN)
            await street.host(offer=offer(RunAgain, name="r"))
            timed, other = await begun(street), await buy(street, RunAgain, most=1, name="r")

            now_ms = street.core.common_ms()
            assert (timed.deadline_ms - now_ms, other.deadline_ms - now_ms) == (160_000, 100_000)

    async def test_is_bounded(self, tmp_path: Path) -> None:
        async with selling(tmp_path, job_runs_max_s=59.0) as street:
            await street.host(offer=AGAIN)

            with pytest.raises(InvalidField, match="asks for 60 seconds, and a job may run for 59 here"):
                await submit(street.core, Order(street.buyer_id, "test", "timed", "m", BODY, MOST, True))

            assert await street.core.jobs.owners() == set()


class TestWorker:
    def test_says_no_more_than_passed_here(self) -> None:
        """An engine's bug is not the host's lie."""
        now = [100.0]
        clock = type("Stopped", (), {"monotonic_s": staticmethod(lambda: now[0])})()
        job = msgspec.structs.replace(make_job(1), kind="timed")
        held = WorkerLease(job, window=100, kinds=KINDS, clock=clock)
        now[0] += TOOK
        held.add(result(MOST))
        now[0] += 1
        held.add(file_frame(progress=WorkProgress(1.0)))

        assert [frame.tokens for frame in held.frames] == [5_000 + SLACK, 1_000 + 1]
        assert [one.tokens for one in as_believed([result(MOST)], Timed())] == [MOST], "it passed elsewhere"


class TestOverTheWire:
    async def test_a_polling_host_is_believed_what_passed(self, tmp_path: Path) -> None:
        async with open_post(tmp_path, kinds=(TARGET,)) as post, aiohttp.ClientSession() as session:
            market = market_of(post, session)
            host = await register(
                market, models=[{"name": "m", "kinds": ["timed"], "prices": {"work_ms": 1_000_000, "busy_ms": 0}}]
            )
            asked = asyncio.create_task(host.next())
            bought = await market.buyer.post("/house/jobs", {"kind": "timed", "model": "m", "body": {"wall_s": 60}})
            assert bought.status == 201, bought.text
            job = await asked
            frame = {"text": "", "tokens": MOST, "extra": b64(result(0).extra)}
            assert (await host.tell(job, "frames", seq=0, items=[frame])).status == 200
            ended = await host.done(job, 1, usage={"prompt_tokens": 0, "completion_tokens": MOST})
            assert ended.status == 200, ended.text

            shown = (await market.buyer.get(f"/house/jobs/{job['job_id']}")).body
            made = shown["units"][-1]
            assert 10 <= made["count"] < 20_000 and made["shown"] == 1_000
            assert shown["cost_uusd"] == made["count"]

            def command(*words: str) -> str:
                result = CliRunner().invoke(program, [*words, "--url", post.url, "--key", post.buyer_key])
                assert result.exit_code == 0, result.output
                return result.output

            seconds = f"{made['count'] / 1000:g}"
            assert f"{seconds} seconds" in await asyncio.to_thread(command, "jobs")
            told = await asyncio.to_thread(command, "jobs", "show", job["job_id"])
            assert re.search(rf"^seconds +0 CPU seconds in, {seconds} out \(at most 60\)", told, re.MULTILINE), told
            assert post.core.fleet.explain_reputation(host.id).jobs_failed == 1

    @pytest.mark.parametrize(("beyond_ms", "busy_ms"), [(0, 5), (30_000, COUNT_MAX)])
    async def test_a_linked_host_is_paid_what_its_engine_took(
        self, tmp_path: Path, beyond_ms: int, busy_ms: int
    ) -> None:
        go = tmp_path / "go"
        options = {"until": str(go), "beyond_ms": beyond_ms, "busy_ms": busy_ms}
        async with (
            open_post(tmp_path, kinds=(TARGET,)) as post,
            post.worker(engine=ENGINE, options=options, kinds=(TARGET,), prices={"work_ms": 1_000_000, "busy_ms": 0}),
        ):
            job = await submit(post.core, Order(post.buyer_id, "test", "timed", "m", BODY, MOST, True))
            async with asyncio.timeout(20):
                while len(job.frames) < 20:
                    await asyncio.sleep(0.01)
                go.touch()
                await job.ended()

            assert job.state is JobState.COMPLETED
            took_ms = job.usage.completion_tokens
            assert 100 <= took_ms < 20_000
            assert job.usage.prompt_tokens == min(busy_ms, 2 * most_in(took_ms))
            (host,) = list(post.core.fleet)
            story = post.core.fleet.explain_reputation(host.id)
            assert (story.jobs_done, story.jobs_failed) == (1, 0)


class TestTwoCoordinators:
    async def test_a_lease_that_moves_keeps_its_time(
        self, tmp_path: Path, postgres_address: str, redis_server: RedisServer
    ) -> None:
        go = tmp_path / "go"
        async with open_posts(tmp_path, database=postgres_address, bus=redis_server.url, kinds=(TARGET,)) as posts:
            both = (posts[0].url, posts[1].url)
            async with posts[0].worker(
                engine=ENGINE, options={"until": str(go)}, kinds=(TARGET,), urls=both,
                prices={"work_ms": 1_000_000, "busy_ms": 0},
            ):  # fmt: skip
                await posts.until(lambda: any(post.core.channels for post in posts.each))
                first, second = sorted(posts.each, key=lambda post: not post.core.channels)
                job = await submit(first.core, Order(first.buyer_id, "test", "timed", "m", BODY, MOST, True))
                await posts.until(lambda: len(job.frames) > 30)
                await say_goodbye(first.core, reason="go to the other", reconnect_after_s=0.0)
                await posts.until(lambda: second.core.jobs.live.get(job.id) is not None)
                there = second.core.jobs.live.get(job.id)
                assert there is not None
                shown = len(there.frames)
                await posts.until(lambda: len(there.frames) > shown)
                go.touch()
                await asyncio.wait_for(there.ended(), 20)

            assert there.state is JobState.COMPLETED
            passed_ms = (await receipt_of(second, there)).segments[0].passed_ms
            assert passed_ms is not None and passed_ms + 10 >= there.usage.completion_tokens >= 300


async def receipt_of(post: Post, job: LiveJob) -> Predicate:
    core = post.core
    envelope_json = await core.receipts.envelope_of(job.id)
    verdict = verify(envelope_json, read_registry(await core.receipts.registry()), core.jobs.kinds)
    assert verdict.ok and verdict.statement is not None, verdict
    return verdict.statement.predicate


def timed_facts(**fields: Any) -> ReceiptFacts:
    """Return facts of a job that took five seconds and kept two cores busy for nine."""
    said = {"output_count": 5_000, "input_count": 9_000, "output_bytes": 3, "passed_ms": 5_000} | fields
    cores = said.pop("cores", 2)
    segment = msgspec.structs.replace(make_segment(frames=3), **said)
    facts = make_facts(segments=[segment])
    return msgspec.structs.replace(
        facts, kind="timed", input_unit="busy_ms", output_unit="work_ms", input_max=2 * MOST, cores=cores
    )


def judged(facts: ReceiptFacts) -> Verdict:
    return verify(envelope(build(facts, make_key(1))), registry_of([make_published_key(make_key(1))]), KINDS)


class TestReceipt:
    @pytest.mark.parametrize(
        ("fields", "good"),
        [
            ({}, True),
            ({"output_count": 5_000 + SLACK}, True),
            ({"output_count": 5_001 + SLACK}, False),
            ({"passed_ms": 4_900}, False),
            ({"passed_ms": None}, False),
            ({"passed_ms": -1}, False),
            ({"output_bytes": 0}, False),
            ({"input_count": 2 * (5_000 + SLACK)}, True),
            ({"input_count": 2 * (5_000 + SLACK) + 1}, False),
            ({"cores": 1}, False),
            ({"cores": -2}, False),
            # Not of CPU: nothing but the order's own bound holds.
            ({"cores": 0, "input_count": 2 * MOST}, True),
            ({"cores": 0, "input_count": 2 * MOST + 1}, False),
        ],
        ids=[
            "honest", "rounded", "more than passed", "less passed", "time left out", "negative", "nothing delivered",
            "both cores", "more than both", "one core", "no number of cores", "not of cores", "beyond the order",
        ],
    )  # fmt: skip
    def test_is_refused_beyond_the_time_that_it_states(self, fields: dict[str, Any], good: bool) -> None:
        verdict = judged(timed_facts(**fields))

        assert verdict.ok is good, verdict
        reasons = (Reason.UNITS_BEYOND_OUTPUT, Reason.UNITS_DO_NOT_ADD_UP)
        assert good or verdict.reason in reasons

    def test_says_nothing_of_time_where_nothing_is_sold_by_it(self) -> None:
        """Receipts of all other work stay the bytes that they were."""
        payload = build(make_facts(), make_key(1)).payload

        assert b"passed_ms" not in payload and b"cores" not in payload
