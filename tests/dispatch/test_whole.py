"""An answer that its buyer gets whole or not at all: if it breaks off, nothing was received and nothing is paid."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from comptoir.dispatch.assign import ATTEMPTS_MAX, revoke_lease
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.expire import sweep
from comptoir.dispatch.stream import fail
from comptoir.dispatch.submit import submit
from comptoir.jobs import Fault, JobState, LiveJob
from comptoir.ledger import audit
from tests.dispatch.continuing import done, earned, lease_of, lost, receipt
from tests.street import GOES_ON, FakeChannel, Street, deliver, open_street, order

PART = 200
"""Micro-dollars for the two tokens that came."""


async def bought(street: Street, *, whole: bool = True, detached: bool = True) -> LiveJob:
    """Buy an answer, of which two tokens come."""
    asked = msgspec.structs.replace(order(street.buyer_id, detached=detached), whole=whole)
    job = await submit(street.core, asked)
    deliver(street.core, job, 2)
    return job


async def host_is_lost(street: Street, job: LiveJob) -> None:
    await lost(street, job)


async def host_fails(street: Street, job: LiveJob) -> None:
    await fail(street.core, job, code="oom", message="out of memory", fault=Fault.HOST)


async def host_is_busy(street: Street, job: LiveJob) -> None:
    await fail(street.core, job, code="busy", message="busy", fault=Fault.CAPACITY)


async def deadline_passes(street: Street, job: LiveJob) -> None:
    street.clock.advance(seconds=street.core.settings.job_ttl_s + 1)
    lease_of(job).touch(street.clock.monotonic_s())
    await sweep(street.core)


async def buyer_cancels(street: Street, job: LiveJob) -> None:
    await cancel(street.core, job)


async def it_is_done(street: Street, job: LiveJob) -> None:
    await done(street, job, 0)


class TestEnds:
    @pytest.mark.parametrize(
        ("happens", "state", "by_pieces", "whole"),
        [
            (host_is_lost, JobState.FAILED, PART, 0),
            (host_fails, JobState.FAILED, PART, 0),
            (host_is_busy, JobState.FAILED, PART, 0),
            (deadline_passes, JobState.EXPIRED, PART, 0),
            # Its buyer's own doing is paid as ever.
            (buyer_cancels, JobState.CANCELLED, PART, PART),
            (it_is_done, JobState.COMPLETED, PART + 7, PART + 7),
        ],
    )
    async def test_what_was_not_received_is_not_paid(
        self,
        street: Street,
        happens: Callable[[Street, LiveJob], Awaitable[None]],
        state: JobState,
        by_pieces: int,
        whole: int,
    ) -> None:
        host, channel = await street.host()
        for as_whole, expected in ((True, whole), (False, by_pieces)):
            street.link(host, channel)
            before, had = await earned(street, host), await street.free_uusd()
            job = await bought(street, whole=as_whole)

            await happens(street, job)
            await street.core.background.drain_tasks()

            assert (job.state, job.cost_uusd) == (state, expected)
            assert await street.free_uusd() == had - expected
            assert await earned(street, host) - before == expected - expected * 12 // 100
            assert (await receipt(street, job)).amounts.charged_uusd == expected
        assert await audit(street.core.db) == []


class TestMadeAgain:
    async def test_from_its_beginning_only_where_nobody_can_go_on(self, street: Street) -> None:
        """One that can is asked to, so that what came before is not lost."""
        first, _ = await street.host(offer=GOES_ON)
        job = await bought(street)
        other, _ = await street.host()
        able, _ = await street.host(offer=GOES_ON)

        await lost(street, job)
        assert (lease_of(job).host_id, len(job.frames)) == (able, 2)
        await done(street, job, 3)

        assert [await earned(street, host) for host in (first, other, able)] == [183, 0, 264]

    async def test_of_what_two_hosts_made_nothing_is_given_up(self, street: Street) -> None:
        """What the first delivered is in the journal; the answer ends, and is free."""
        await street.host(offer=GOES_ON)
        job = await bought(street)
        await street.host(offer=GOES_ON)
        await lost(street, job)
        deliver(street.core, job, 1)
        await street.host()

        await lost(street, job)

        assert (job.state, job.cost_uusd, len(job.frames)) == (JobState.FAILED, 0, 3)

    async def test_not_for_ever(self, street: Street) -> None:
        """As often as any other job."""
        hosts = [await street.host() for _ in range(6)]
        job = await bought(street)

        while job.state is JobState.RUNNING:
            await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)
            if job.state is JobState.RUNNING:
                deliver(street.core, job, 1)

        assert (job.state, job.cost_uusd, job.losses) == (JobState.FAILED, 0, ATTEMPTS_MAX)
        assert [await earned(street, host) for host, _ in hosts] == [0] * 6


class TestRestart:
    async def test_it_is_still_given_whole(self, tmp_path: Path, database_address: str) -> None:
        async with open_street(tmp_path, database=database_address) as street:
            host, _ = await street.host()
            job = await bought(street)
            buyer = street.buyer_id

        async with open_street(tmp_path, database=database_address, buyer=buyer) as street:
            street.link(host, FakeChannel())
            again = street.core.jobs.live.get(job.id)
            assert again is not None and again.whole and again.as_row().whole == 1
            deliver(street.core, again, 2)
            await lost(street, again)
            assert (again.state, again.cost_uusd) == (JobState.FAILED, 0)
