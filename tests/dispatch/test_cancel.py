"""Cancel: the host stops at once, delivered tokens are paid, the rest goes back."""

import asyncio

import pytest

from comptoir.dispatch.cancel import cancel, hang_up
from comptoir.jobs import JobFinished, JobState, Reader
from comptoir.reports import audit
from tests.street import SIGNUP_UUSD, Street, deliver, finish_well, until_over


class TestCancel:
    async def test_a_waiting_job_leaves_the_line_and_costs_nothing(self, street: Street) -> None:
        await street.host()
        running, waiting = await street.submit(), await street.submit()

        await cancel(street.core, waiting)

        assert (waiting.state, waiting.cost_uusd) == (JobState.CANCELLED, 0)
        assert waiting.id not in street.core.jobs.queue
        assert await street.free_uusd() == SIGNUP_UUSD - running.terms.hold_uusd
        assert await audit(street.core.db) == []

    async def test_a_running_job_is_stopped_at_the_host_and_paid_as_far_as_it_came(self, street: Street) -> None:
        _, line = await street.host()
        job = await street.submit()
        deliver(street.core, job, 3)

        await cancel(street.core, job)

        assert line.cancelled == [(line.sent[0][1].id, "cancelled by the buyer")]
        assert (job.state, job.cost_uusd) == (JobState.CANCELLED, 300)
        assert await audit(street.core.db) == []

    async def test_the_freed_host_takes_the_next_in_line(self, street: Street) -> None:
        _, line = await street.host()
        first, second = await street.submit(), await street.submit()

        await cancel(street.core, first)
        await street.core.background.drain_tasks()

        assert [job for job, _ in line.sent] == [first, second]
        assert second.state == JobState.RUNNING

    async def test_what_is_over_stays_as_it_is(self, street: Street) -> None:
        await street.host()
        job = await street.submit()
        await finish_well(street.core, job)

        with pytest.raises(JobFinished, match="completed"):
            await cancel(street.core, job)

        assert job.state == JobState.COMPLETED

    async def test_a_reader_sees_the_end(self, street: Street) -> None:
        await street.host()
        job = await street.submit()
        reading = asyncio.create_task(Reader(job).next())

        await cancel(street.core, job)

        assert await reading is None

    async def test_in_the_moment_of_its_start_it_is_cancelled_and_not_run(self, street: Street) -> None:
        """The start of a waiting job and its cancellation meet in the writer, whatever else does."""
        await street.host(slots=4)
        first = [await street.submit() for _ in range(4)]
        waiting = [await street.submit() for _ in range(4)]
        ends = [asyncio.create_task(finish_well(street.core, job)) for job in first]
        async with asyncio.timeout(10):
            while not any(job.lease for job in waiting):
                await asyncio.sleep(0)

        await asyncio.gather(*(cancel(street.core, job) for job in waiting), *ends)
        await street.core.background.drain_tasks()

        assert {job.state for job in waiting} == {JobState.CANCELLED}
        assert [host.slots.free for host in street.core.fleet] == [4]
        assert await audit(street.core.db) == []


class TestHangUp:
    async def test_the_host_is_told_before_the_books_are_written(self, street: Street) -> None:
        _, line = await street.host()
        job = await street.submit(detached=False)

        hang_up(street.core, job)

        assert line.cancelled == [(line.sent[0][1].id, "the client hung up")]
        await until_over(job)
        assert job.state == JobState.CANCELLED

    async def test_twice_is_once(self, street: Street) -> None:
        _, line = await street.host()
        job = await street.submit(detached=False)

        hang_up(street.core, job)
        hang_up(street.core, job)
        await street.core.background.drain_tasks()
        hang_up(street.core, job)

        assert job.state == JobState.CANCELLED
        assert len(line.closed) == 1
        assert await audit(street.core.db) == []
