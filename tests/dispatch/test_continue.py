"""Continuation: what a lost host delivered stays delivered, another host goes on after it, and each is paid its
part."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from comptoir.dispatch.assign import ATTEMPTS_MAX, revoke_lease
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.errors import BadSegment
from comptoir.dispatch.expire import sweep
from comptoir.dispatch.settle import segment_of
from comptoir.dispatch.stream import complete, fail, take_frames
from comptoir.jobs import Fault, JobState, Reader
from comptoir.kit.errors import Unavailable
from comptoir.kit.signing import SigningKey
from comptoir.link import Frame, Usage, segment_bytes
from comptoir.receipts import AuthenticatedBy
from comptoir.reports import audit
from tests.dispatch.continuing import PROMPT, dearer, done, earned, journal, lease_of, lost, receipt
from tests.street import GOES_ON, SIGNUP_UUSD, Street, deliver, open_street


class TestSlots:
    async def test_a_host_that_comes_while_its_lease_is_being_closed_is_counted_once(self, street: Street) -> None:
        """One of several coordinators counts the slots of a host anew when it comes; the closing lease still has
        one."""
        host_id, _ = await street.host(slots=2)
        job = await street.submit(max_tokens=10)
        fleet = street.core.fleet

        losing = asyncio.create_task(revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST))
        await asyncio.sleep(0)
        assert job.lease is None and not losing.done()
        fleet.get(host_id).node_id = b"another"
        fleet.mark_linked(host_id)
        await losing

        assert fleet.get(host_id).slots.running == (0 if job.lease is None else 1)


class TestGoingOn:
    async def test_another_host_gets_what_was_delivered_and_goes_on_after_it(self, street: Street) -> None:
        lines = dict([await street.host(offer=GOES_ON), await street.host(offer=GOES_ON)])
        job = await street.submit(max_tokens=10)
        reader = Reader(job)
        deliver(street.core, job, 3)
        before = job.running_hash

        first = await lost(street, job)

        lease = lease_of(job)
        assert (job.state, lease.host_id != first) == (JobState.RUNNING, True)
        assert (lease.first_frame, lease.hash_before) == (3, before)
        assert lines[lease.host_id].sent == [(job, lease)]
        assert lines[first].closed == [(lines[first].sent[0][1].id, "lost", 0)]
        await done(street, job, 4)
        assert [frame.text for frame in await reader.next() or []] == ["0 ", "1 ", "2 ", "0 ", "1 ", "2 ", "3 "]
        assert await reader.next() is None
        assert await audit(street.core.db) == []

    async def test_a_host_that_was_told_to_stop_has_not_answered(self, street: Street) -> None:
        """The coordinator told it to stop, and died before it could write that the lease was gone."""
        await street.host(offer=GOES_ON), await street.host(offer=GOES_ON)
        job = await street.submit(max_tokens=10)
        deliver(street.core, job, 3)
        first = lease_of(job).host_id

        await complete(street.core, job, finish_reason="cancelled", usage=Usage(0, 3), running_hash=job.running_hash)

        assert (job.state, lease_of(job).first_frame, lease_of(job).host_id != first) == (JobState.RUNNING, 3, True)
        await done(street, job, 4)
        assert (job.state, len(job.frames)) == (JobState.COMPLETED, 7)
        attempts = await street.core.jobs.attempts(job.id)
        assert [(attempt.state, attempt.fault) for attempt in attempts] == [("lost", "coordinator"), ("done", None)]
        assert await audit(street.core.db) == []

    async def test_each_is_paid_its_part_and_the_prompt_is_paid_once(self, street: Street) -> None:
        lines = dict([await street.host(offer=GOES_ON), await street.host(offer=GOES_ON)])
        job = await street.submit(max_tokens=10)
        deliver(street.core, job, 3)
        first = await lost(street, job)
        second = lease_of(job).host_id
        await done(street, job, 4)

        # The first read the prompt: 7 tokens at 1 beside its 3 at 100. 12 % are the house's, rounded down for each.
        assert job.cost_uusd == 307 + 400
        assert await earned(street, first) == 307 - 36
        assert await earned(street, second) == 400 - 48
        assert lines[first].closed[-1][1:] == ("lost", 307 - 36)
        assert lines[second].closed[-1][1:] == ("done", 400 - 48)
        assert await street.free_uusd() == SIGNUP_UUSD - 707
        assert (job.usage.prompt_tokens, job.usage.completion_tokens) == (PROMPT, 7)
        row = await street.core.jobs.get(job.id)
        assert (row.state, row.fault, row.prompt_tokens, row.completion_tokens) == ("completed", None, PROMPT, 7)
        attempts = await street.core.jobs.attempts(job.id)
        assert [
            (a.state, a.fault, a.first_frame, a.end_frame, a.tokens, a.paid_uusd, a.prompt_tokens) for a in attempts
        ] == [("lost", "host", 0, 3, 3, 271, None), ("done", None, 3, 7, 4, 352, PROMPT)]
        assert await journal(street) == 0
        assert await audit(street.core.db) == []

    async def test_the_receipt_names_both_and_says_what_stands_for_the_lost_ones_signature(
        self, street: Street
    ) -> None:
        keys = [SigningKey.generate(), SigningKey.generate()]
        hosts = [(await street.host(offer=GOES_ON, public_key=key.public_key))[0] for key in keys]
        job = await street.submit(max_tokens=10)
        deliver(street.core, job, 3)
        first = await lost(street, job)
        deliver(street.core, job, 2)
        lease = lease_of(job)
        segment = segment_of(job, lease, "stop", Usage(PROMPT, 2))
        assert (segment.first_frame, segment.end_frame, segment.completion_tokens) == (3, 5, 2)
        signature = keys[hosts.index(lease.host_id)].sign(segment_bytes(segment))

        await complete(
            street.core,
            job,
            finish_reason="stop",
            usage=Usage(PROMPT, 2),
            signature=signature,
            running_hash=job.running_hash,
        )

        predicate = await receipt(street, job)
        assert [entry.authenticated_by for entry in predicate.segments] == [
            AuthenticatedBy.RUNNING_HASH,
            AuthenticatedBy.SIGNATURE,
        ]
        assert [(entry.first_frame, entry.end_frame) for entry in predicate.segments] == [(0, 3), (3, 5)]
        assert hosts.index(first) != hosts.index(lease.host_id)
        assert predicate.units[1].count == 5

    async def test_prices_may_differ_and_the_hold_is_never_exceeded(self, street: Street) -> None:
        await street.host(offer=dearer(0))
        job = await street.submit(max_tokens=10)
        await street.host(offer=dearer(1))
        deliver(street.core, job, 4)
        await lost(street, job)

        # The hold has room for the longest prompt, so a host that is one percent dearer still fits below it.
        assert lease_of(job).rate_out == 101_000_000
        await done(street, job, 6)

        assert job.cost_uusd == 4 * 100 + PROMPT + 6 * 101 <= job.terms.hold_uusd
        predicate = await receipt(street, job)
        assert [entry.units[1].rate for entry in predicate.segments] == [100_000_000, 101_000_000]
        assert predicate.units[1].rate == 101_000_000
        assert await audit(street.core.db) == []

    async def test_three_hosts_die_one_after_the_other(self, street: Street) -> None:
        for _ in range(4):
            await street.host(offer=GOES_ON)
        job = await street.submit(max_tokens=20)
        gone = []
        for tokens in (1, 0, 5):
            deliver(street.core, job, tokens)
            gone.append(await lost(street, job))
        last = lease_of(job).host_id
        assert len({*gone, last}) == 4
        await done(street, job, 2)

        # The one that died without a frame of its own is in no segment and is paid nothing.
        assert [await earned(street, host_id) for host_id in [*gone, last]] == [107 - 12, 0, 500 - 60, 200 - 24]
        assert [(e.first_frame, e.end_frame) for e in (await receipt(street, job)).segments] == [(0, 1), (1, 6), (6, 8)]
        assert [host.slots.running for host in street.core.fleet] == [0] * 4
        assert await audit(street.core.db) == []

    async def test_a_job_that_so_many_hosts_lost_ends_and_all_are_paid(self, street: Street) -> None:
        for _ in range(ATTEMPTS_MAX + 2):
            await street.host(offer=GOES_ON)
        job = await street.submit(max_tokens=20)

        losses = 0
        while not job.over:
            losses += 1
            deliver(street.core, job, 2)
            await lost(street, job)

        assert (losses, job.state, job.error_code) == (ATTEMPTS_MAX, JobState.FAILED, "host_lost")
        assert job.cost_uusd == ATTEMPTS_MAX * 200
        assert await journal(street) == 0
        assert await audit(street.core.db) == []

    async def test_frames_that_a_lost_host_sends_late_belong_to_nobody(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        await street.host(offer=GOES_ON)
        job = await street.submit()
        deliver(street.core, job, 2)
        old = lease_of(job)
        await lost(street, job)

        assert street.core.jobs.live.by_lease(old.id) is None

    async def test_all_tokens_that_were_asked_for_are_a_whole_answer(self, street: Street) -> None:
        """A host may die between its last frame and its last word: there is nothing left to go on with."""
        await street.host(offer=GOES_ON)
        await street.host(offer=GOES_ON)
        job = await street.submit(max_tokens=3)
        deliver(street.core, job, 3)

        await lost(street, job)

        assert (job.state, job.finish_reason, job.cost_uusd) == (JobState.COMPLETED, "length", 300)
        assert [(a.state, a.fault) for a in await street.core.jobs.attempts(job.id)] == [("lost", "host")]
        assert await audit(street.core.db) == []

    async def test_a_last_frame_with_a_finish_reason_is_the_end(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        await street.host(offer=GOES_ON)
        job = await street.submit()
        take_frames(street.core, job, 0, [Frame("a"), Frame("", 0, b'{"finish_reason":"tool_calls"}')])

        await lost(street, job)

        assert (job.state, job.finish_reason) == (JobState.COMPLETED, "tool_calls")

    async def test_nonsense_beside_the_last_frame_is_no_finish_reason(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        await street.host(offer=GOES_ON)
        job = await street.submit()
        # As it may be of a job that was begun before frames were checked (test_bad_frames.py).
        job.append([Frame("a"), Frame("b", 1, b'{"finish_reason":"\xff"}')])

        await lost(street, job)

        assert (job.state, lease_of(job).first_frame) == (JobState.RUNNING, 2)


class TestNobodyCan:
    async def test_an_answer_that_nobody_can_go_on_with_ends_and_what_came_is_paid(self, street: Street) -> None:
        await street.host()
        await street.host()
        job = await street.submit()
        deliver(street.core, job, 2)

        await lost(street, job)

        assert (job.state, job.error_code, job.cost_uusd) == (JobState.FAILED, "host_lost", 200)

    async def test_or_nothing_is_paid_where_the_house_says_so(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, charge_for_broken_answers=False) as street:
            first, _ = await street.host(offer=GOES_ON)
            job = await street.submit()
            second, _ = await street.host(offer=GOES_ON)
            deliver(street.core, job, 2)
            await lost(street, job)
            deliver(street.core, job, 2)

            await lost(street, job)

            assert (job.state, job.cost_uusd) == (JobState.FAILED, 0)
            assert [await earned(street, host_id) for host_id in (first, second)] == [0, 0]
            assert await street.free_uusd() == SIGNUP_UUSD
            assert len((await receipt(street, job)).segments) == 2
            assert await audit(street.core.db) == []

    async def test_while_all_who_could_are_busy_it_waits_at_the_head_of_the_line(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        job = await street.submit()
        deliver(street.core, job, 2)
        await street.host(offer=GOES_ON)
        other = await street.submit()
        waiting = await street.submit()

        first = await lost(street, job)
        # The host that lost it is not asked again, but may have the next one in line.
        await street.core.background.drain_tasks()

        assert (job.state, street.core.jobs.queue.before(job.id)) == (JobState.QUEUED, 0)
        assert waiting.host_id == first
        await done(street, other, 1)
        await street.core.background.drain_tasks()
        assert (job.state, lease_of(job).first_frame) == (JobState.RUNNING, 2)

    async def test_but_not_for_ever(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        job = await street.submit()
        deliver(street.core, job, 2)
        await street.host(offer=GOES_ON)
        await street.submit()
        await lost(street, job)

        street.clock.advance(seconds=street.core.settings.broken_wait_s - 1)
        await sweep(street.core)
        assert job.state == JobState.QUEUED
        street.clock.advance(seconds=2)
        await sweep(street.core)

        assert (job.state, job.error_code, job.cost_uusd, job.fault) == (
            JobState.FAILED,
            "host_lost",
            200,
            Fault.CAPACITY,
        )
        assert street.core.jobs.live.broken == {}
        assert await journal(street) == 0
        assert await audit(street.core.db) == []

    async def test_one_that_says_it_can_not_go_on_is_passed_over_without_blame(self, street: Street) -> None:
        for _ in range(3):
            await street.host(offer=GOES_ON)
        job = await street.submit()
        deliver(street.core, job, 2)
        await lost(street, job)
        unable = lease_of(job).host_id

        await fail(street.core, job, code="cannot_continue", message="no", fault=Fault.COORDINATOR)

        assert job.state == JobState.RUNNING
        assert lease_of(job).host_id != unable
        assert street.core.fleet.get(unable).stored().jobs_failed == 0
        await done(street, job, 1)
        assert await earned(street, unable) == 0
        assert await audit(street.core.db) == []

    async def test_and_when_it_was_the_last_the_answer_ends_without_its_blame(self, street: Street) -> None:
        for _ in range(2):
            await street.host(offer=GOES_ON)
        job = await street.submit()
        deliver(street.core, job, 2)
        await lost(street, job)
        unable = lease_of(job).host_id

        await fail(street.core, job, code="cannot_continue", message="no", fault=Fault.HOST)

        assert (job.state, job.error_code, job.cost_uusd) == (JobState.FAILED, "host_lost", 200)
        stored = street.core.fleet.get(unable).stored()
        assert (stored.jobs_failed, stored.jobs_lost) == (0, 0)


class TestGarbage:
    async def test_who_does_not_stand_by_its_frames_earns_nothing_and_the_next_is_paid_its_own(
        self, street: Street
    ) -> None:
        keys = [SigningKey.generate(), SigningKey.generate()]
        hosts = [(await street.host(offer=GOES_ON, public_key=key.public_key))[0] for key in keys]
        job = await street.submit()
        deliver(street.core, job, 3)
        bad = lease_of(job).host_id

        with pytest.raises(BadSegment):
            await complete(
                street.core,
                job,
                finish_reason="stop",
                usage=Usage(1, 3),
                signature=b"s" * 64,
                running_hash=job.running_hash,
            )

        lease = lease_of(job)
        assert (lease.first_frame, lease.host_id != bad) == (3, True)
        deliver(street.core, job, 1)
        signature = keys[hosts.index(lease.host_id)].sign(
            segment_bytes(segment_of(job, lease, "stop", Usage(PROMPT, 1)))
        )
        await complete(
            street.core,
            job,
            finish_reason="stop",
            usage=Usage(PROMPT, 1),
            signature=signature,
            running_hash=job.running_hash,
        )
        # The prompt goes to the first that is paid at all.
        assert (job.state, job.cost_uusd) == (JobState.COMPLETED, 100 + PROMPT)
        assert await earned(street, bad) == 0
        assert (await receipt(street, job)).units[1].count == 4
        assert street.core.fleet.get(bad).stored().jobs_failed == 1
        assert await audit(street.core.db) == []


class TestEndingInBetween:
    async def test_a_cancellation_while_it_waits_pays_what_came(self, street: Street) -> None:
        first, _ = await street.host(offer=GOES_ON)
        job = await street.submit()
        deliver(street.core, job, 2)
        await street.host(offer=GOES_ON)
        await street.submit()
        await lost(street, job)

        await cancel(street.core, job)

        assert (job.state, job.cost_uusd, len(street.core.jobs.queue)) == (JobState.CANCELLED, 200, 0)
        assert await earned(street, first) == 200 - 24
        assert await audit(street.core.db) == []

    async def test_a_cancellation_that_meets_the_loss_pays_what_came_once(self, street: Street) -> None:
        first, _ = await street.host(offer=GOES_ON)
        await street.host(offer=GOES_ON)
        job = await street.submit()
        deliver(street.core, job, 2)
        first = lease_of(job).host_id

        await asyncio.gather(lost(street, job), cancel(street.core, job))

        assert (job.state, job.cost_uusd) == (JobState.CANCELLED, 200)
        assert await earned(street, first) == 200 - 24
        assert [host.slots.running for host in street.core.fleet] == [0, 0]
        assert await audit(street.core.db) == []

    async def test_the_deadline_counts_from_the_beginning(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        job = await street.submit()
        await street.host(offer=GOES_ON)
        deliver(street.core, job, 2)
        await lost(street, job)
        deliver(street.core, job, 1)
        street.clock.advance(seconds=street.core.settings.job_ttl_s)

        await sweep(street.core)

        assert (job.state, job.cost_uusd) == (JobState.EXPIRED, 300)
        assert await audit(street.core.db) == []

    async def test_while_the_database_is_away_the_lease_and_its_frames_stand(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await street.host(offer=GOES_ON)
        await street.host(offer=GOES_ON)
        job = await street.submit()
        deliver(street.core, job, 2)
        lease = lease_of(job)

        async def away(*args: Any, **named: Any) -> None:
            raise Unavailable("the database is out of reach")

        with monkeypatch.context() as patched:
            patched.setattr(street.core.db, "batch", away)
            with pytest.raises(Unavailable):
                await revoke_lease(street.core, job, lease, "it broke", fault=Fault.HOST)
        assert (job.lease, job.segments, len(job.frames)) == (lease, [], 2)
        await revoke_lease(street.core, job, lease, "it broke", fault=Fault.HOST)
        await done(street, job, 1)

        assert job.cost_uusd == 300 + PROMPT
        assert await audit(street.core.db) == []
