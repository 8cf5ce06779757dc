"""A linked host begins while the job is being written; the buyer sees nothing before, and a refusal undoes it all."""

import asyncio
from pathlib import Path

import pytest

from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.stream import complete, fail
from comptoir.jobs import Fault, JobState
from comptoir.ledger import InsufficientCredit, audit
from comptoir.link import Usage
from tests.street import Street, deliver, finish_well, open_street


async def bought_once(street: Street) -> None:
    """Let the house see the buyer's credit once."""
    await finish_well(street.core, await street.submit())


class TestEarlyStart:
    async def test_the_first_job_of_a_buyer_waits_for_its_commit(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            _, line = await street.host()

            task = asyncio.create_task(street.submit())
            await asyncio.sleep(0)

            assert line.sent == []
            await task
            assert len(line.sent) == 1

    async def test_a_later_one_is_with_the_host_before_it_is_written(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            _, line = await street.host()
            await bought_once(street)

            task = asyncio.create_task(street.submit())
            await asyncio.sleep(0)

            assert len(line.sent) == 2
            assert not task.done()
            await finish_well(street.core, line.sent[1][0])
            job = await task
            assert job.state == JobState.COMPLETED
            assert await audit(street.core.db) == []

    @pytest.mark.parametrize("meanwhile", ["nothing", "frames", "done", "failed"])
    async def test_one_refused_after_all_is_stopped_and_unpaid(self, tmp_path: Path, meanwhile: str) -> None:
        async with open_street(tmp_path) as street:
            core = street.core
            host_id, line = await street.host()
            await bought_once(street)
            before = await core.ledger.account(host_id)
            core.state(Buyers).note_credit(street.buyer_id, 10**12)

            task = asyncio.create_task(street.submit(max_tokens=50_000))
            await asyncio.sleep(0)
            job = line.sent[1][0]
            if meanwhile in ("frames", "done"):
                deliver(core, job, 3)
            if meanwhile == "done":
                await complete(core, job, finish_reason="stop", usage=Usage(1, 3))
            if meanwhile == "failed":
                await fail(core, job, code="busy", message="busy", fault=Fault.CAPACITY)
            with pytest.raises(InsufficientCredit):
                await task

            assert (await core.ledger.account(host_id)).balance_uusd == before.balance_uusd
            assert core.jobs.live.leased == 0
            assert len(core.jobs.live) == 0
            assert core.state(Buyers).in_flight.counts() == {}
            assert core.fleet.get(host_id).slots.running == 0
            if meanwhile in ("nothing", "frames"):
                assert line.cancelled[-1][0] == line.sent[1][1].id
                assert line.closed[-1] == (line.sent[1][1].id, "failed", 0)
            assert await audit(core.db) == []
            job = await street.submit()
            assert job.state == JobState.RUNNING
