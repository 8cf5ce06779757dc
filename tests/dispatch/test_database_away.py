"""PostgreSQL is killed under the street: what was begun goes on, nothing new is taken, and all ends are written when it
is back."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.deferred_settlements import DeferredSettlements, retry_when_db_returns
from comptoir.dispatch.stream import complete, fail
from comptoir.hosts import POLL
from comptoir.jobs import Fault, JobState
from comptoir.kit.errors import Unavailable
from comptoir.link import Usage
from comptoir.reports import audit
from tests.at_once import at_once
from tests.servers import OwnServer
from tests.street import SIGNUP_UUSD, Street, deliver, finish_well, open_street

BACK_S = 20.0
"""A bound against hanging."""


@pytest.fixture
async def street(tmp_path: Path, own_server: OwnServer, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Street]:
    caplog.set_level(logging.CRITICAL)
    async with open_street(tmp_path, database=own_server.url) as opened:
        yield opened


async def kill(street: Street, server: OwnServer) -> None:
    """Kill the server, and have somebody notice."""
    server.kill()
    with pytest.raises(Unavailable):
        await street.core.ledger.deposit(owner_id=street.buyer_id, amount_uusd=1)
    assert street.core.db.unavailable


async def until_written(street: Street) -> None:
    async with asyncio.timeout(BACK_S):
        await street.core.db.wait_available()
        while len(street.core.state(DeferredSettlements)):
            await asyncio.sleep(0.01)
        await street.core.background.drain_tasks()


class TestNothingNew:
    async def test_a_submit_is_refused_at_once_and_leaves_nothing(self, street: Street, own_server: OwnServer) -> None:
        _, line = await street.host()
        await kill(street, own_server)

        async with at_once():
            with pytest.raises(Unavailable):
                await street.submit()
        assert line.sent == []

        own_server.start()
        await until_written(street)
        await finish_well(street.core, await street.submit())
        assert await street.free_uusd() == SIGNUP_UUSD - 501
        assert await audit(street.core.db) == []

    async def test_a_waiting_job_stays_in_line_and_goes_when_it_is_back(
        self, street: Street, own_server: OwnServer
    ) -> None:
        host_id, line = await street.host()
        first, second = await street.submit(), await street.submit()
        await kill(street, own_server)

        with pytest.raises(Unavailable):
            await finish_well(street.core, first)
        await street.core.background.drain_tasks()
        assert street.core.fleet.get(host_id).slots.free == 1
        assert [job for job, _ in line.sent] == [first]

        own_server.start()
        await until_written(street)
        async with asyncio.timeout(BACK_S):
            while len(line.sent) < 2:
                await asyncio.sleep(0.01)
        await finish_well(street.core, second)
        assert [first.state, second.state] == [JobState.COMPLETED] * 2
        assert await audit(street.core.db) == []


class TestEnds:
    async def test_an_answer_flows_on_and_its_end_is_written_once(self, street: Street, own_server: OwnServer) -> None:
        _, line = await street.host()
        job = await street.submit()
        deliver(street.core, job, 2)
        await kill(street, own_server)

        deliver(street.core, job, 3)
        with pytest.raises(Unavailable):
            await complete(street.core, job, finish_reason="stop", usage=Usage(1, 5))
        assert not job.over
        assert line.closed == []

        own_server.start()
        await until_written(street)

        assert job.state == JobState.COMPLETED
        assert [earned for _, _, earned in line.closed] == [441]
        assert street.core.jobs.live.leased == 0
        assert await street.free_uusd() == SIGNUP_UUSD - 501
        assert await audit(street.core.db) == []

    async def test_a_cancellation_is_written_too(self, street: Street, own_server: OwnServer) -> None:
        _, line = await street.host()
        job = await street.submit()
        deliver(street.core, job, 2)
        await kill(street, own_server)

        with pytest.raises(Unavailable):
            await cancel(street.core, job)
        assert len(line.cancelled) == 1

        own_server.start()
        await until_written(street)
        assert job.state == JobState.CANCELLED
        assert await audit(street.core.db) == []

    async def test_a_failure_before_the_first_frame_moves_the_job_on(
        self, street: Street, own_server: OwnServer
    ) -> None:
        lines = [(await street.host())[1] for _ in range(2)]
        job = await street.submit()
        await kill(street, own_server)

        with pytest.raises(Unavailable):
            await retry_when_db_returns(
                street.core, job, lambda: fail(street.core, job, code="broken", message="it broke", fault=Fault.HOST)
            )
        assert job.state == JobState.RUNNING

        own_server.start()
        await until_written(street)
        async with asyncio.timeout(BACK_S):
            while sum(len(line.sent) for line in lines) < 2:
                await asyncio.sleep(0.01)
        await finish_well(street.core, job)
        assert [len(line.sent) for line in lines] == [1, 1]
        assert await audit(street.core.db) == []

    async def test_a_lost_poll_is_taken_back_later(self, street: Street, own_server: OwnServer) -> None:
        _, line = await street.host(transport=POLL)
        _, other = await street.host()
        job = await street.submit()
        lease = job.lease
        assert lease is not None
        await kill(street, own_server)

        with pytest.raises(Unavailable):
            await retry_when_db_returns(
                street.core, job, lambda: revoke_lease(street.core, job, lease, "its poll hung up", fault=Fault.NONE)
            )

        own_server.start()
        await until_written(street)
        assert job.lease is not lease
        assert len(line.sent) + len(other.sent) == 2
        assert await audit(street.core.db) == []

    async def test_a_signature_that_turns_out_bad_is_not_paid(self, street: Street, own_server: OwnServer) -> None:
        """It is verified in the command that settles, when nobody waits for the answer any more."""
        await street.host()
        job = await street.submit()
        deliver(street.core, job, 2)
        await kill(street, own_server)

        with pytest.raises(Unavailable):
            await complete(street.core, job, finish_reason="stop", usage=Usage(1, 2), signature=b"forged" * 8)

        own_server.start()
        await until_written(street)
        assert (job.state, job.error_code, job.cost_uusd) == (JobState.FAILED, "bad_segment", 0)
        assert await audit(street.core.db) == []


class TestEarlyStart:
    async def test_an_answer_that_was_faster_than_its_refused_submit_leaves_nothing(
        self, street: Street, own_server: OwnServer
    ) -> None:
        """The host began beside the commit (ADR 0014), and the commit never came."""
        host_id, line = await street.host()
        await finish_well(street.core, await street.submit())
        own_server.kill()

        submitting = asyncio.ensure_future(street.submit())
        await asyncio.sleep(0)
        job, _ = line.sent[-1]
        ending = asyncio.ensure_future(finish_well(street.core, job))
        outcomes = await asyncio.gather(submitting, ending, return_exceptions=True)

        assert isinstance(outcomes[0], Unavailable)
        assert street.core.fleet.get(host_id).slots.free == 1
        own_server.start()
        await until_written(street)
        await finish_well(street.core, await street.submit())
        assert await street.free_uusd() == SIGNUP_UUSD - 2 * 501
        assert await audit(street.core.db) == []


class TestClosing:
    async def test_a_house_closes_without_its_database(self, tmp_path: Path, own_server: OwnServer) -> None:
        async with asyncio.timeout(BACK_S), open_street(tmp_path, database=own_server.url) as street:
            await street.host()
            job = await street.submit()
            deliver(street.core, job, 1)
            await kill(street, own_server)
            with pytest.raises(Unavailable):
                await cancel(street.core, job)
