"""Away: no job waits for hosts that have been offline for longer than ``host_away_s``, and a brief absence is none."""

from pathlib import Path

import pytest

from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.errors import HostsAway, NoHostPossible
from comptoir.dispatch.expire import sweep
from comptoir.jobs import Fault, JobState
from comptoir.reports import audit
from tests.street import GOES_ON, FakeChannel, Street, finish_well, open_street

AWAY_S = 45.0


async def pass_time(street: Street, seconds: float) -> None:
    """Let time pass and sweep once; whoever is linked gives signs of life."""
    street.clock.advance(seconds=seconds)
    for host in street.core.fleet:
        if host.linked:
            street.core.fleet.seen(host.id)
    await sweep(street.core)


class TestSubmit:
    async def test_it_waits_for_a_host_that_left_just_now_and_not_for_one_that_is_gone(self, street: Street) -> None:
        host_id, channel = await street.host()
        street.unlink(host_id)
        await pass_time(street, AWAY_S - 1)
        waiting = await street.submit()
        await pass_time(street, 2)

        with pytest.raises(HostsAway, match=r"offline; try again later") as refused:
            await street.submit()
        assert refused.value.retry_after_s > 0
        with pytest.raises(NoHostPossible):  # It would fit on no host, here or gone.
            await street.submit(max_tokens=200_000)

        street.link(host_id, channel)
        await street.core.background.drain_tasks()
        assert waiting.state is JobState.RUNNING
        assert (await street.submit()).state is JobState.QUEUED

    async def test_a_host_that_never_came_counts_as_gone_after_a_start_only_in_time(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            buyer = street.buyer_id
            await street.host()
        async with open_street(tmp_path, buyer=buyer) as street:
            await street.submit()
            await pass_time(street, AWAY_S + 1)

            with pytest.raises(HostsAway):
                await street.submit()

    async def test_the_price_to_wait_at_is_that_of_hosts_that_are_here(self, street: Street) -> None:
        """An offline host at price 0 made every waiting job one that no other host could take."""
        for _ in range(3):
            free_id, _ = await street.host(offer=GOES_ON.__class__("m", ["chat"], 100_000, 0, 0))
            street.unlink(free_id)
        await pass_time(street, AWAY_S + 1)
        _, channel = await street.host()
        first = await street.submit()

        waiting = await street.submit()
        assert waiting.terms.hold_uusd > 0
        await finish_well(street.core, first)
        await street.core.background.drain_tasks()

        assert [job for job, _ in channel.sent] == [first, waiting]


class TestWaiting:
    async def test_connected_buyers_are_told_and_detached_jobs_wait_on(self, street: Street) -> None:
        host_id, channel = await street.host()
        street.unlink(host_id)
        attached, detached = [await street.submit(detached=detached) for detached in (False, True)]
        await pass_time(street, AWAY_S + 1)

        assert (attached.state, attached.fault, attached.error_code, attached.error_status) == (
            JobState.FAILED, Fault.CAPACITY, "hosts_away", 503,
        )  # fmt: skip
        assert (attached.cost_uusd, attached.retry_after_s > 0, detached.state) == (0, True, JobState.QUEUED)
        street.link(host_id, channel)
        await street.core.background.drain_tasks()
        assert [job for job, _ in channel.sent] == [detached]
        await cancel(street.core, detached)
        assert await audit(street.core.db) == []

    async def test_a_job_that_another_host_could_run_waits_for_that_one(self, street: Street) -> None:
        gone_id, _ = await street.host()
        busy = await street.submit()
        other_id, _ = await street.host()
        street.core.fleet.reserve(other_id, "m")
        waiting = await street.submit(detached=False)
        street.unlink(gone_id)
        await pass_time(street, AWAY_S + 1)

        assert waiting.state is JobState.QUEUED
        assert busy.lease is None

    async def test_who_comes_back_to_a_post_with_one_host_is_waited_for(self, street: Street) -> None:
        host_id, _ = await street.host()
        for _ in range(3):
            street.unlink(host_id)
            await pass_time(street, 15.0)
            job = await street.submit(detached=False)
            street.link(host_id, FakeChannel())
            await street.core.background.drain_tasks()
            await finish_well(street.core, job)
            assert job.state is JobState.COMPLETED
