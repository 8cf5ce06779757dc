"""Recover and drain: a restart loses no accepted job and forgets no hold."""

import asyncio
from pathlib import Path

import pytest

from comptoir.dispatch import assign
from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.drain import Shutdown, drain
from comptoir.dispatch.stream import fail
from comptoir.hosts import POLL
from comptoir.jobs import Fault, JobState
from comptoir.kit.errors import Unavailable
from comptoir.reports import audit
from tests.street import SIGNUP_UUSD, FakeChannel, Street, deliver, finish_well, open_street


class TestRecover:
    async def test_waiting_jobs_wait_again_in_their_order(self, tmp_path: Path, database_address: str) -> None:
        async with open_street(tmp_path, database=database_address) as street:
            host_id, _ = await street.host()
            buyer = street.buyer_id
            ids = [(await street.submit()).id for _ in range(4)]

        async with open_street(tmp_path, database=database_address, buyer=buyer) as street:
            queue, live = street.core.jobs.queue, street.core.jobs.live
            assert [queue.before(job_id) for job_id in ids] == [None, 0, 1, 2]
            assert street.core.state(Buyers).in_flight.counts() == {buyer: 4}
            channel = FakeChannel()
            street.link(host_id, channel)
            for job_id in ids:
                job = live.get(job_id)
                assert job is not None
                await finish_well(street.core, job)
                await street.core.background.drain_tasks()
            assert [job.id for job, _ in channel.sent] == ids[1:]
            assert street.core.state(Buyers).in_flight.counts() == {}
            assert await audit(street.core.db) == []

    async def test_a_linked_host_keeps_its_lease_and_may_send_all_again(
        self, tmp_path: Path, database_address: str
    ) -> None:
        async with open_street(tmp_path, database=database_address) as street:
            host_id, _ = await street.host()
            buyer, job = street.buyer_id, await street.submit()
            deliver(street.core, job, 3)
            lease = job.lease

        async with open_street(tmp_path, database=database_address, buyer=buyer) as street:
            revived = street.core.jobs.live.get(job.id)
            assert revived is not None and revived.lease is not None and lease is not None
            assert (revived.lease.id, revived.host_id, revived.frames) == (lease.id, host_id, [])
            assert street.core.fleet.get(host_id).slots.free == 0
            await finish_well(street.core, revived, tokens=5)
            assert revived.cost_uusd == 501
            assert await audit(street.core.db) == []

    async def test_one_that_forgot_acknowledged_frames_starts_over_without_blame(
        self, tmp_path: Path, database_address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(assign, "SAME_HOST_AGAIN_S", 0.0)
        async with open_street(tmp_path, database=database_address) as street:
            host_id, _ = await street.host()
            buyer, job = street.buyer_id, await street.submit()

        async with open_street(tmp_path, database=database_address, buyer=buyer) as street:
            channel = FakeChannel()
            street.link(host_id, channel)
            revived = street.core.jobs.live.get(job.id)
            assert revived is not None
            await fail(street.core, revived, code="frames_gone", message="gone", fault=Fault.COORDINATOR)
            async with asyncio.timeout(10):
                while not channel.sent:
                    await asyncio.sleep(0)
            assert [sent for sent, _ in channel.sent] == [revived]
            await finish_well(street.core, revived)
            assert revived.state == JobState.COMPLETED
            assert street.core.fleet.get(host_id).stored().jobs_failed == 0
            assert await audit(street.core.db) == []

    async def test_a_host_can_not_blame_us_to_get_the_same_job_for_ever(
        self, tmp_path: Path, database_address: str
    ) -> None:
        async with open_street(tmp_path, database=database_address) as street:
            _, channel = await street.host()
            job = await street.submit()

            await fail(street.core, job, code="frames_gone", message="gone", fault=Fault.COORDINATOR)

            assert job.state == JobState.FAILED
            assert len(channel.sent) == 1

    async def test_a_polling_host_has_no_frames_so_its_job_goes_back_in_line(
        self, tmp_path: Path, database_address: str
    ) -> None:
        async with open_street(tmp_path, database=database_address) as street:
            host_id, _ = await street.host()
            buyer, job = street.buyer_id, await street.submit()
            sql = "UPDATE hosts SET transport = ?"
            await street.core.db.run(lambda tx: tx.execute(sql, (POLL,)))

        async with open_street(tmp_path, database=database_address, buyer=buyer) as street:
            revived = street.core.jobs.live.get(job.id)
            assert revived is not None
            assert (revived.state, revived.lease) == (JobState.QUEUED, None)
            assert host_id not in revived.tried
            assert await audit(street.core.db) == []

    async def test_a_buyer_who_waited_on_the_line_gets_all_back(self, tmp_path: Path, database_address: str) -> None:
        async with open_street(tmp_path, database=database_address) as street:
            await street.host()
            buyer, job = street.buyer_id, await street.submit(detached=False)
            deliver(street.core, job, 3)

        async with open_street(tmp_path, database=database_address, buyer=buyer) as street:
            row = await street.core.jobs.get(job.id)
            assert (row.state, row.error_code, row.fault) == ("failed", "coordinator_restarted", "coordinator")
            assert await street.free_uusd() == SIGNUP_UUSD
            assert street.core.state(Buyers).in_flight.counts() == {}
            assert await audit(street.core.db) == []

    async def test_restarting_again_and_again_changes_nothing(self, tmp_path: Path, database_address: str) -> None:
        async with open_street(tmp_path, database=database_address) as street:
            await street.host()
            buyer = street.buyer_id
            for _ in range(3):
                await street.submit()

        events = set()
        for _ in range(3):
            async with open_street(tmp_path, database=database_address, buyer=buyer) as street:
                ((count,),) = await street.core.db.fetch("SELECT count(*) FROM job_events")
                events.add(count)
                assert await audit(street.core.db) == []

        assert events == {4}


class TestDrain:
    async def test_it_takes_no_more_and_waits_for_open_answers(self, street: Street) -> None:
        await street.host()
        job = await street.submit()
        draining = asyncio.create_task(drain(street.core))
        await asyncio.sleep(0)

        with pytest.raises(Unavailable):
            await street.submit()
        assert not draining.done()
        await finish_well(street.core, job)

        assert await draining == 0

    async def test_what_does_not_end_in_time_stays_durable(self, tmp_path: Path, database_address: str) -> None:
        async with open_street(tmp_path, database=database_address, drain_s=0.0) as street:
            await street.host()
            job, waiting = await street.submit(), await street.submit()

            assert await drain(street.core) == 1

            assert (await street.core.jobs.get(job.id)).state == "running"
            assert (await street.core.jobs.get(waiting.id)).state == "queued"
            assert await audit(street.core.db) == []

    async def test_what_could_not_be_sent_any_more_waits_in_line_and_blames_nobody(self, street: Street) -> None:
        """Its host was sent away while the lease was written: it links to another coordinator, and has nothing to bring
        there."""
        host_id, channel = await street.host()
        running, waiting = await street.submit(), await street.submit()
        street.core.state(Shutdown).refuse_jobs()
        channel.open = False
        await finish_well(street.core, running)
        await street.core.background.drain_tasks()

        assert (waiting.state, waiting.lease, host_id in waiting.tried) == (JobState.QUEUED, None, False)
        (attempt,) = await street.core.jobs.attempts(waiting.id)
        assert (attempt.state, attempt.fault) == ("lost", None)
        assert await audit(street.core.db) == []

    async def test_with_nothing_open_it_does_not_wait(self, street: Street) -> None:
        await street.host()

        assert await asyncio.wait_for(drain(street.core), 5) == 0
