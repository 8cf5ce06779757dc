"""Assign: the oldest job that a free host may run goes to it; what a host loses goes to another, or ends honestly."""

import asyncio
from typing import Any

import pytest

from comptoir.dispatch import assign, deferred_settlements
from comptoir.dispatch.assign import ATTEMPTS_MAX, lease_on, reserve_host, revoke_lease, spec_of, start_verb
from comptoir.hosts import POLL
from comptoir.jobs import Fault, JobFinished, JobState, Lease, LiveJob, NotYourLease, Start
from comptoir.kit.errors import Refusal, Unavailable
from comptoir.kit.ids import new_id
from comptoir.reports import audit
from tests.street import SIGNUP_UUSD, Street, deliver, finish_well


def lease_of(job: LiveJob) -> Lease:
    assert job.lease is not None
    return job.lease


async def attempts(street: Street, job: LiveJob) -> list[tuple[str, str | None, int]]:
    sql = "SELECT state, fault, paid_uusd FROM attempts WHERE job_id = ? ORDER BY id"
    return [(row[0], row[1], row[2]) for row in await street.core.db.fetch(sql, [job.id])]


class TestPump:
    async def test_waiting_jobs_are_taken_oldest_first(self, street: Street) -> None:
        _, line = await street.host()
        jobs = [await street.submit() for _ in range(4)]

        for job in jobs:
            await finish_well(street.core, job)
            await street.core.background.drain_tasks()

        assert [job for job, _ in line.sent] == jobs
        assert {job.state for job in jobs} == {JobState.COMPLETED}
        assert await audit(street.core.db) == []

    async def test_a_job_that_could_not_be_leased_is_tried_again_unasked(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With nobody else coming or ending, no other event would ever look at the line."""
        monkeypatch.setattr(deferred_settlements, "PAUSE_S", 0.0)
        _, line = await street.host()
        running, waiting = await street.submit(), await street.submit()
        batch = street.core.db.batch
        refused: list[Any] = []

        async def away_once(verb: Any, item: Any, **named: Any) -> Any:
            if verb is start_verb and not refused:
                refused.append(item)
                raise Unavailable("the database is out of reach")
            return await batch(verb, item, **named)

        monkeypatch.setattr(street.core.db, "batch", away_once)
        await finish_well(street.core, running)
        async with asyncio.timeout(10):
            while len(line.sent) < 2:
                await asyncio.sleep(0)

        assert len(refused) == 1
        assert waiting.state == JobState.RUNNING
        assert await audit(street.core.db) == []


class TestLose:
    async def test_before_the_first_frame_another_host_takes_over(self, street: Street) -> None:
        (bad, _), (good, line) = await street.host(), await street.host()
        street.unlink(good)
        job = await street.submit()
        street.link(good, line)

        await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)
        assert (job.state, job.host_id) == (JobState.RUNNING, good)
        await finish_well(street.core, job)

        assert await attempts(street, job) == [("lost", "host", 0), ("done", None, 441)]
        assert [event[0] for event in await street.core.jobs.events(job.id)] == ["queued", "running"] * 2 + [
            "completed"
        ]
        assert street.core.fleet.get(bad).stored().jobs_lost == 1
        assert await audit(street.core.db) == []

    async def test_the_command_that_took_it_away_does_so_once(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As if it had come twice: by then the lease is another host's."""
        await street.host()
        job = await street.submit()
        await street.host()
        written: list[assign.Requeued] = []
        batch = street.core.db.batch

        def noted(verb: Any, item: Any, **turn: Any) -> Any:
            written.extend([item] if verb is assign.requeue_verb else [])
            return batch(verb, item, **turn)

        monkeypatch.setattr(street.core.db, "batch", noted)
        await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)
        now = lease_of(job).id

        (first,) = written
        with pytest.raises(NotYourLease):
            await batch(assign.requeue_verb, first)

        stored = await street.core.jobs.get(job.id)
        assert (stored.state, stored.attempt_id) == (JobState.RUNNING, now)

    async def test_with_nobody_free_it_waits_at_the_head_of_the_line(self, street: Street) -> None:
        (first, _), (second, _) = await street.host(), await street.host()
        jobs = [await street.submit() for _ in range(3)]
        lost = next(job for job in jobs if job.host_id == first)
        other = next(job for job in jobs if job.host_id == second)

        await revoke_lease(street.core, lost, lease_of(lost), "it broke", fault=Fault.NONE)
        assert street.core.jobs.queue.before(lost.id) == 0
        await finish_well(street.core, other)
        await street.core.background.drain_tasks()

        assert lost.host_id == second

    async def test_after_the_first_frame_it_ends_and_what_came_is_paid(self, street: Street) -> None:
        await street.host()
        await street.host()
        job = await street.submit()
        deliver(street.core, job, 2)

        await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)

        assert (job.state, job.error_code, job.cost_uusd) == (JobState.FAILED, "host_lost", 200)
        assert await audit(street.core.db) == []

    async def test_with_nobody_else_it_ends_and_costs_nothing(self, street: Street) -> None:
        await street.host()
        job = await street.submit()

        await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)

        assert (job.state, job.error_code) == (JobState.FAILED, "no_host_left")
        assert await street.free_uusd() == SIGNUP_UUSD

    async def test_a_job_that_so_many_hosts_lost_is_tried_no_more(self, street: Street) -> None:
        for _ in range(ATTEMPTS_MAX + 2):
            await street.host()
        job = await street.submit()

        losses = 0
        while not job.over:
            losses += 1
            await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)

        assert losses == ATTEMPTS_MAX
        assert len(await attempts(street, job)) == ATTEMPTS_MAX
        assert await audit(street.core.db) == []

    async def test_a_host_that_is_not_to_blame_may_get_the_job_again(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(assign, "SAME_HOST_AGAIN_S", 0.0)
        host_id, line = await street.host()
        job = await street.submit()

        await revoke_lease(street.core, job, lease_of(job), "we restarted", fault=Fault.COORDINATOR)
        async with asyncio.timeout(10):
            while job.lease is None:
                await asyncio.sleep(0)
        await street.core.background.drain_tasks()

        assert [sent for sent, _ in line.sent] == [job, job]
        assert street.core.fleet.get(host_id).stored().jobs_lost == 0

    async def test_a_lease_that_is_gone_is_left_alone(self, street: Street) -> None:
        await street.host()
        await street.host()
        job = await street.submit()
        stale = lease_of(job)
        await revoke_lease(street.core, job, stale, "it broke", fault=Fault.HOST)
        fresh = lease_of(job)

        await revoke_lease(street.core, job, stale, "again", fault=Fault.HOST)

        assert job.lease is fresh
        assert len(await attempts(street, job)) == 2

    async def test_a_poll_that_just_ended_is_found_out_at_once(self, street: Street) -> None:
        first, gone = await street.host(transport=POLL)
        gone.open = False
        second, line = await street.host()
        street.unlink(second)
        job = await street.submit()
        street.link(second, line)
        await street.core.background.drain_tasks()

        assert [sent for sent, _ in line.sent] == [job]
        assert first not in job.tried
        assert await audit(street.core.db) == []

    async def test_while_the_database_is_away_the_lease_stands(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await street.host()
        await street.host()
        job = await street.submit()
        lease = lease_of(job)

        async def away(*args: Any, **named: Any) -> None:
            raise Unavailable("the database is out of reach")

        with monkeypatch.context() as patched:
            patched.setattr(street.core.db, "batch", away)
            with pytest.raises(Unavailable):
                await revoke_lease(street.core, job, lease, "it broke", fault=Fault.HOST)
        assert (job.lease, job.state) == (lease, JobState.RUNNING)
        assert (job.tried, job.losses) == (frozenset(), 0), "nobody has lost anything yet"
        await finish_well(street.core, job)

        assert job.state == JobState.COMPLETED
        assert await audit(street.core.db) == []

    @pytest.mark.parametrize("refusal", [Unavailable("the database is out of reach"), NotYourLease()])
    async def test_a_job_that_moved_while_its_lease_was_being_closed_does_not_get_it_back(
        self, street: Street, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
    ) -> None:
        """Another coordinator said so first; the host's slot is free, whatever the database then says."""
        await street.host()
        await street.host()
        job = await street.submit()
        live = street.core.jobs.live

        async def moved(*args: Any, **named: Any) -> None:
            assert live.become_mirror(job, b"p" * 16) is None
            raise refusal

        monkeypatch.setattr(street.core.db, "batch", moved)
        lease = lease_of(job)
        await revoke_lease(street.core, job, lease, "it broke", fault=Fault.NONE)

        assert (job.lease, live.leased, list(live.leaving), live.get(job.id)) == (None, 0, [], None)
        assert street.core.fleet.get(lease.host_id).slots.running == 0

    async def test_a_lease_that_the_database_does_not_know_gives_its_slot_back(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await street.host()
        await street.host()
        job = await street.submit()
        lease = lease_of(job)

        async def stale(*args: Any, **named: Any) -> None:
            raise NotYourLease

        monkeypatch.setattr(street.core.db, "batch", stale)
        with pytest.raises(NotYourLease):
            await revoke_lease(street.core, job, lease, "it broke", fault=Fault.HOST)

        assert (job.lease, street.core.fleet.get(lease.host_id).slots.running) == (None, 0)


class TestWriteLease:
    async def test_a_start_that_is_refused_leaves_no_trace(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host_id, channel = await street.host()
        street.unlink(host_id)
        job = await street.submit()
        street.core.jobs.queue.remove(job.id)
        street.link(host_id, channel)
        candidate = reserve_host(street.core, spec_of(job))
        assert candidate is not None

        async def away(*args: Any, **named: Any) -> None:
            raise Unavailable("the database is out of reach")

        monkeypatch.setattr(street.core.db, "batch", away)
        with pytest.raises(Unavailable):
            await lease_on(street.core, job, candidate, from_id=street.core.node_id)

        assert (job.lease, job.state, street.core.jobs.live.leased) == (None, JobState.QUEUED, 0)
        assert street.core.fleet.get(candidate.host_id).slots.running == 0


class TestStartVerb:
    async def test_a_job_is_leased_once_whoever_asks(self, street: Street) -> None:
        host_id, _ = await street.host()
        running, waiting = await street.submit(), await street.submit()

        def start(job: LiveJob) -> Start:
            node_id = street.core.node_id
            return Start(job.id, new_id(), host_id, 0, 1, job.events, node_id, node_id, 1, 2)

        batch = street.core.db.batch
        done = await asyncio.gather(
            batch(start_verb, start(running)), batch(start_verb, start(waiting)), return_exceptions=True
        )
        again = await asyncio.gather(batch(start_verb, start(waiting)), return_exceptions=True)

        assert isinstance(done[0], JobFinished)
        assert done[1] is None
        assert isinstance(again[0], JobFinished)
