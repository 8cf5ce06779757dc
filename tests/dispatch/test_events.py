"""What the street tells: a job's life as events, its end numbered in the command that settles it."""

import logging
from pathlib import Path

import pytest

from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.expire import DAY_MS, forget, sweep
from comptoir.dispatch.onboard import add_user
from comptoir.dispatch.settle import Ending, finish
from comptoir.dispatch.webhooks import add_webhook
from comptoir.events import (
    CreditAdded,
    Event,
    HostFree,
    HostRegistered,
    JobAccepted,
    JobAssigned,
    JobEnded,
    JobSent,
    NumberedEvent,
    ReceiptIssued,
)
from comptoir.identity import Role
from comptoir.jobs import Fault, JobState, LiveJob
from comptoir.ledger import InsufficientCredit
from comptoir.reports import audit
from tests.street import SIGNUP_UUSD, Street, deliver, finish_well, open_street


async def told(street: Street, *, after: int = 0) -> list[NumberedEvent]:
    """Return the buyer's numbered events."""
    return await street.core.events.after(street.buyer_id, after)


class TestJob:
    async def test_its_life_is_told_in_order(self, street: Street) -> None:
        heard = list[Event]()
        for kind in (JobAccepted, JobAssigned, JobSent, JobEnded, ReceiptIssued, HostRegistered):
            street.core.events.subscribe(kind, heard.append)
        host_id, line = await street.host()
        job = await street.submit()
        ((_, lease),) = line.sent
        await finish_well(street.core, job)

        now = street.clock.now_ms()
        assert heard == [
            HostRegistered(host_id, now),
            JobSent(job.id, lease.id),
            JobEnded(street.buyer_id, now, 2, job.id, JobState.COMPLETED, job.cost_uusd),
            ReceiptIssued(street.buyer_id, now, job.id),
        ]
        assert await told(street, after=1) == heard[2:3]

    async def test_a_freed_slot_is_told_before_the_end_is_written(self, street: Street) -> None:
        _, _ = await street.host()
        job = await street.submit()
        free = list[bool]()
        street.core.events.subscribe(HostFree, lambda event: free.append(job.over))

        await finish_well(street.core, job)

        assert free == [False]

    @pytest.mark.parametrize(
        ("end", "state", "code"),
        [
            ("complete", JobState.COMPLETED, ""),
            ("cancel", JobState.CANCELLED, "cancelled"),
            ("expire", JobState.EXPIRED, "expired"),
            ("fail", JobState.FAILED, "bad_request"),
        ],
    )
    async def test_each_end_is_numbered_with_what_it_cost(
        self, street: Street, end: str, state: JobState, code: str
    ) -> None:
        await street.host()
        job = await street.submit()
        deliver(street.core, job, 2)
        await self.end(street, job, end)

        assert job.state == state
        wanted = JobEnded(street.buyer_id, street.clock.now_ms(), 2, job.id, state, job.cost_uusd, job.error_code)
        assert await told(street, after=1) == [wanted]
        assert job.error_code == code
        assert await audit(street.core.db) == []

    async def end(self, street: Street, job: LiveJob, end: str) -> None:
        if end == "complete":
            await finish_well(street.core, job, tokens=1)
        elif end == "cancel":
            await cancel(street.core, job)
        elif end == "fail":
            await finish(street.core, job, Ending(JobState.FAILED, fault=Fault.BUYER, code="bad_request", status=400))
        else:
            street.clock.advance(seconds=street.core.settings.job_ttl_s + 1)
            await sweep(street.core)

    async def test_one_that_was_refused_is_not_told(self, street: Street) -> None:
        await street.host()
        await add_webhook(street.core, owner_id=street.buyer_id, url="https://shop.example/")
        with pytest.raises(InsufficientCredit):
            await street.submit(max_tokens=50_000)

        assert len(await told(street)) == 1

    async def test_two_ends_at_once_are_told_once(self, street: Street) -> None:
        await street.host()
        job = await street.submit()
        await finish_well(street.core, job)
        await finish(street.core, job, Ending(JobState.CANCELLED))

        assert [event.number for event in await told(street)] == [1, 2]

    async def test_many_ends_in_one_commit_have_numbers_without_gap(self, street: Street) -> None:
        await street.host(slots=20)
        other = (await add_user(street.core, username="bob", email=None, password=None)).user.id
        jobs = [await street.submit() for _ in range(20)]
        for job in jobs:
            street.core.background.spawn(finish_well(street.core, job, tokens=1))
        await street.core.background.drain_tasks()

        assert [event.number for event in await told(street)] == list(range(1, 22))
        assert {event.job_id for event in await told(street) if isinstance(event, JobEnded)} == {job.id for job in jobs}
        assert [type(event) for event in await street.core.events.after(other, 0)] == [CreditAdded]
        assert await audit(street.core.db) == []

    async def test_a_subscriber_that_fails_costs_nobody_the_end(
        self, street: Street, caplog: pytest.LogCaptureFixture
    ) -> None:
        await street.host()

        def broken(event: Event) -> None:
            raise ValueError("planted")

        for kind in (HostFree, JobAccepted, JobAssigned, JobSent, JobEnded, ReceiptIssued):
            street.core.events.subscribe(kind, broken)
        with street.core.events.follow(street.buyer_id, after=1) as reader, caplog.at_level(logging.CRITICAL):
            job = await street.submit()
            await finish_well(street.core, job)

            assert job.state == JobState.COMPLETED
            assert (await reader.next()).number == 2
        assert street.core.fleet.get(job.host_id or b"").slots.free == 1


class TestMoney:
    async def test_what_the_house_gives_is_told(self, street: Street) -> None:
        (given,) = await told(street)

        assert isinstance(given, CreditAdded)
        assert (given.number, given.amount_uusd, given.kind) == (1, SIGNUP_UUSD, "signup")

    async def test_who_is_given_nothing_hears_of_nothing(self, street: Street) -> None:
        operator = await add_user(street.core, username="root", email=None, password=None, role=Role.ADMIN)

        assert await street.core.events.after(operator.user.id, 0) == []

    async def test_a_deposit_is_told(self, street: Street) -> None:
        transfer_id = await street.core.ledger.deposit(owner_id=street.buyer_id, amount_uusd=7)

        now = street.clock.now_ms()
        assert await told(street, after=1) == [CreditAdded(street.buyer_id, now, 2, transfer_id, 7, "deposit")]


class TestRetention:
    async def test_old_events_go_with_the_answers(self, street: Street) -> None:
        await street.host()
        for _ in range(3):
            await finish_well(street.core, await street.submit())
        street.clock.advance(seconds=street.core.settings.retention_days * DAY_MS / 1000 + 1)

        await forget(street.core)

        assert [event.number for event in await told(street, after=3)] == [4]
        assert await audit(street.core.db) == []

    async def test_without_retention_they_stay(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, retention_days=0) as street:
            street.clock.advance(seconds=20_000 * DAY_MS / 1000)
            await street.core.ledger.deposit(owner_id=street.buyer_id, amount_uusd=7)

            await forget(street.core)

            assert [event.number for event in await told(street)] == [1, 2]
