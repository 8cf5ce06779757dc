"""Watch: a host is taken for lost when it is silent for longer than is its way, and somebody else is free to go on."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from comptoir.dispatch import watch
from comptoir.dispatch.drain import Shutdown
from comptoir.dispatch.expire import sweep
from comptoir.dispatch.stream import take_frames
from comptoir.dispatch.submit import Order, submit
from comptoir.dispatch.watch import RELINK_S, link_dropped, patience_s
from comptoir.hosts import DONE, POLL
from comptoir.jobs import Fault, JobState, LiveJob
from comptoir.kinds.tokens import TOOLS_S
from comptoir.link import Frame
from tests.dispatch.continuing import lease_of
from tests.street import GOES_ON, MODEL, FakeChannel, Street, deliver, open_street


async def running(street: Street, *, frames: int = 3) -> LiveJob:
    """Return a job whose host has sent *frames*, a tenth of a second apart."""
    job = await street.submit(max_tokens=1000)
    for _ in range(frames):
        street.clock.advance(seconds=0.1)
        deliver(street.core, job, 1)
    return job


def keep_alive(street: Street) -> None:
    for host in street.core.fleet:
        street.core.fleet.seen(host.id)


async def silent_for(street: Street, seconds: float) -> None:
    street.clock.advance(seconds=seconds)
    keep_alive(street)
    await sweep(street.core)


class TestStall:
    async def test_a_host_that_is_silent_beyond_its_way_loses_the_job_to_one_that_is_free(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        job = await running(street)
        first = lease_of(job)
        await street.host(offer=GOES_ON)
        patience = patience_s(street.core, job, first)

        await silent_for(street, patience - 0.1)
        assert job.lease is first
        await silent_for(street, 0.2)

        assert (job.state, lease_of(job).first_frame, lease_of(job) is first) == (JobState.RUNNING, 3, False)
        attempts = await street.core.jobs.attempts(job.id)
        assert [(each.state, each.fault) for each in attempts] == [("lost", Fault.HOST), ("leased", None)]
        assert street.core.fleet.get(first.host_id).stored().jobs_lost == 1

    async def test_with_nobody_free_it_keeps_its_lease_to_the_end(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        job = await running(street)
        await street.host(offer=GOES_ON)
        await street.submit()
        await silent_for(street, street.core.settings.lease_s - 1)
        assert job.lease is not None
        assert job.segments == []

        await silent_for(street, 2)

        assert len(job.segments) == 1

    async def test_a_slow_start_is_no_silence(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        job = await street.submit(max_tokens=1000)
        first = lease_of(job)
        await street.host(offer=GOES_ON)

        await silent_for(street, street.core.settings.stall_first_floor_s)

        assert job.lease is first

    async def test_a_long_prompt_is_given_the_time_to_read_it(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        body = b'{"messages":["%b"]}' % (b"x" * 3000)
        short = await street.submit()
        street.core.fleet.release(lease_of(short).host_id)
        long = await submit(street.core, Order(street.buyer_id, "test", "chat", MODEL, body, 10, True))

        more_s = patience_s(street.core, long, lease_of(long)) - patience_s(street.core, short, lease_of(short))

        assert more_s == pytest.approx(1000 * 0.02, rel=0.05)


PADDING = [
    Frame("", 5),
    Frame("", 1, b'{"delta":{"role":"assistant"}}'),
    Frame(" \n"),
    Frame("\u200b\u3164"),
    Frame("", 1, b'{"index":0,"note":"still here"}'),
]


class TestProgress:
    @pytest.mark.parametrize("padding", PADDING)
    @pytest.mark.parametrize("frames", [0, 3])
    async def test_frames_that_show_nothing_are_no_sign_that_the_answer_goes_on(
        self, street: Street, padding: Frame, frames: int
    ) -> None:
        """Empty frames counted as life: a host that sent one a second kept its buyers for as long as it liked."""
        first_id, _ = await street.host(offer=GOES_ON)
        job = await running(street, frames=frames)
        first = lease_of(job)
        await street.host(offer=GOES_ON)
        figures = street.core.fleet.pace(first_id, MODEL)
        patience = patience_s(street.core, job, first)

        for _ in range(int(patience) + 1):
            take_frames(street.core, job, len(job.frames), [padding])
            await silent_for(street, 1)

        assert lease_of(job).host_id != first_id
        assert street.core.fleet.pace(first_id, MODEL) is figures

    async def test_frames_that_were_sent_before_are_none_either(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        job = await running(street)
        first = lease_of(job)
        street.clock.advance(seconds=1)

        before = first.touched_s
        assert take_frames(street.core, job, 0, job.frames[:]) == 3
        assert first.touched_s == before

    @pytest.mark.parametrize(
        "shown", [Frame("word"), Frame("\u4f60"), Frame("", 1, b'{"delta":{"reasoning_content":"hm"}}')]
    )
    async def test_whatever_its_buyer_is_shown_is(self, street: Street, shown: Frame) -> None:
        await street.host(offer=GOES_ON)
        job = await street.submit(max_tokens=1000)
        street.clock.advance(seconds=1)

        take_frames(street.core, job, 0, [Frame(""), shown])

        lease = lease_of(job)
        assert (lease.touched_s, lease.delivers, job.first_frame_s) == (
            street.clock.monotonic_s(),
            True,
            lease.touched_s,
        )

    async def test_a_host_may_send_nothing_of_use_while_it_reads_a_long_prompt(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        body = b'{"messages":[{"role":"user","content":"%b"}]}' % (b"x" * 6000)
        job = await submit(street.core, Order(street.buyer_id, "test", "chat", MODEL, body, 10, True))
        first = lease_of(job)
        await street.host(offer=GOES_ON)

        for _ in range(50):
            take_frames(street.core, job, len(job.frames), [Frame("", 0, b'{"index":0}')])
            await silent_for(street, 1)
        assert job.lease is first

        street.core.fleet.drain(next(host.id for host in street.core.fleet if host.id != first.host_id))
        for _ in range(45):  # With nobody else free, for lease_s and the 40 s that 2,000 tokens may take to read.
            take_frames(street.core, job, len(job.frames), [Frame("", 0, b'{"index":0}')])
            await silent_for(street, 1)
        assert job.lease is first
        for _ in range(10):
            take_frames(street.core, job, len(job.frames), [Frame("", 0, b'{"index":0}')])
            await silent_for(street, 1)
            if job.lease is not first:
                break
        assert job.lease is not first


class TestNewcomer:
    async def test_its_silence_costs_seconds_where_the_models_others_answer_in_milliseconds(
        self, street: Street
    ) -> None:
        """A newcomer was believed for 34 s, by its own claim: 10 of 10 buyers still waited after 28 s."""
        known_id, _ = await street.host(offer=GOES_ON)
        fleet = street.core.fleet
        for n in range(64):
            fleet.outcome(known_id, DONE, buyer=bytes([n]) * 16, tokens=9, paid_uusd=900)
            fleet.first_frame(known_id, MODEL, 50.0)
        fleet.reserve(known_id, MODEL)
        new_id, _ = await street.host(offer=GOES_ON)
        job = await street.submit()
        lease = lease_of(job)
        assert lease.host_id == new_id
        assert patience_s(street.core, job, lease) < 6
        fleet.release(known_id)
        await street.core.background.drain_tasks()

        await silent_for(street, 6)

        assert lease_of(job).host_id == known_id

    async def test_where_nobody_is_proven_it_has_the_time_that_all_had(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        await street.host(offer=GOES_ON)
        job = await street.submit()

        assert patience_s(street.core, job, lease_of(job)) > 30


class TestPatience:
    async def test_it_is_a_multiple_of_the_hosts_own_99th_percentile_within_floor_and_lease(
        self, tmp_path: Path
    ) -> None:
        async with open_street(tmp_path, stall_floor_s=1.0, stall_factor=8.0, lease_s=30.0) as street:
            host_id, _ = await street.host(offer=GOES_ON)
            job = await running(street, frames=1)
            fleet, lease = street.core.fleet, lease_of(job)

            def known_for(gap_ms: float) -> float:
                for _ in range(20):
                    fleet.frames(host_id, MODEL, gap_ms, 1000)
                    fleet.get(host_id).paces[MODEL].longest_gap_ms = 0.0
                return patience_s(street.core, job, lease)

            unknown = patience_s(street.core, job, lease)
            assert unknown == pytest.approx(8 * 0.24)
            assert known_for(1.0) == 1.0
            assert known_for(500.0) == pytest.approx(8 * 0.5, rel=0.3)
            assert known_for(60_000.0) == 30.0

    async def test_a_host_that_sends_in_bunches_is_known_to_pause(self, street: Street) -> None:
        host_id, _ = await street.host(offer=GOES_ON)
        job = await running(street, frames=1)
        for _ in range(50):
            street.core.fleet.frames(host_id, MODEL, 20.0, 200)

        # 200 frames every four seconds: 20 ms a frame, and silence in between.
        assert patience_s(street.core, job, lease_of(job)) > 7.9

    async def test_an_answer_with_tools_may_come_in_one_piece(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        body = b'{"messages":[],"tools":[{"type":"function"}]}'
        job = await submit(street.core, Order(street.buyer_id, "test", "chat", MODEL, body, 10, True))
        deliver(street.core, job, 1)

        assert patience_s(street.core, job, lease_of(job)) == TOOLS_S

    async def test_a_host_without_our_worker_sends_as_it_likes(self, street: Street) -> None:
        await street.host(offer=msgspec.structs.replace(GOES_ON, can_continue=False), transport=POLL)
        job = await running(street, frames=1)

        assert patience_s(street.core, job, lease_of(job)) == street.core.settings.lease_s


class TestTogether:
    async def test_when_most_hosts_fall_silent_at_once_it_is_not_them(self, street: Street) -> None:
        for _ in range(4):
            await street.host(offer=GOES_ON)
        jobs = [await running(street, frames=2) for _ in range(4)]
        for job in jobs:
            lease_of(job).touched_s = street.clock.monotonic_s()
        await street.host(slots=8, offer=GOES_ON)
        leases = [lease_of(job) for job in jobs]

        await silent_for(street, 10)
        assert [job.lease for job in jobs] == leases
        await silent_for(street, street.core.settings.lease_s)

        assert all(job.lease not in leases for job in jobs)

    async def test_one_of_them_alone_is_lost(self, street: Street) -> None:
        for _ in range(4):
            await street.host(offer=GOES_ON)
        jobs = [await running(street, frames=2) for _ in range(4)]
        await street.host(slots=8, offer=GOES_ON)
        lease = lease_of(jobs[0])
        street.clock.advance(seconds=10)
        for job in jobs[1:]:
            deliver(street.core, job, 1)

        await silent_for(street, 0.1)

        assert jobs[0].lease is not lease
        assert [len(job.segments) for job in jobs] == [1, 0, 0, 0]


def drop(street: Street, job: LiveJob) -> bytes:
    """Drop the link of the job's host as its session does."""
    host_id = lease_of(job).host_id
    street.unlink(host_id)
    link_dropped(street.core, host_id)
    return host_id


class TestDroppedLink:
    async def test_where_somebody_is_free_the_job_goes_on_in_a_moment(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watch, "RELINK_BRIEF_S", 0.0)
        await street.host(offer=GOES_ON)
        job = await running(street)
        await street.host(offer=GOES_ON)
        first = drop(street, job)

        async with asyncio.timeout(10):
            while not job.segments or job.lease is None:
                await asyncio.sleep(0)
        await street.core.background.drain_tasks()

        assert job.host_id != first

    async def test_a_worker_that_is_back_by_then_keeps_it(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        job = await running(street)
        await street.host(offer=GOES_ON)
        lease = lease_of(job)
        host_id = drop(street, job)
        street.link(host_id, FakeChannel())
        lease.dropped_s = 0.0

        await silent_for(street, 0.5)

        assert job.lease is lease

    async def test_with_nobody_free_it_has_the_long_time(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        job = await running(street)
        await street.host(offer=GOES_ON)
        await street.submit()
        drop(street, job)
        await silent_for(street, RELINK_S - 1)
        assert job.lease is not None

        await silent_for(street, 2)

        assert job.lease is None
        assert job.state == JobState.QUEUED

    async def test_where_it_was_sent_away_it_is_not_to_blame(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        job = await running(street)
        street.core.state(Shutdown).refuse_jobs()
        host_id = drop(street, job)

        await silent_for(street, RELINK_S + 1)

        assert (job.state, host_id in job.tried) == (JobState.QUEUED, False)
        (attempt,) = await street.core.jobs.attempts(job.id)
        assert (attempt.state, attempt.fault) == ("lost", Fault.COORDINATOR)

    async def test_when_most_links_drop_together_all_have_the_long_time(self, street: Street) -> None:
        """A balancer that blinks must not send every job through the fleet."""
        for _ in range(4):
            await street.host(offer=GOES_ON)
        jobs = [await running(street, frames=1) for _ in range(4)]
        await street.host(slots=8, offer=GOES_ON)
        leases = [lease_of(job) for job in jobs]
        for job in jobs:
            drop(street, job)

        await silent_for(street, 0.5)
        assert [job.lease for job in jobs] == leases
        await silent_for(street, 5)

        assert [job.lease for job in jobs] == leases
