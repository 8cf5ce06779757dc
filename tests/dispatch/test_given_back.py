"""Hosts that are never at fault: what they say of the coordinator is believed once, and where it can be true."""

import pytest

from comptoir.dispatch.stream import STOPPED, complete, fail_as_reported
from comptoir.jobs import AttemptState, JobState, LiveJob
from comptoir.link import Fail, Usage
from tests.dispatch.continuing import lease_of
from tests.street import GOES_ON, Street, deliver, finish_well


async def accuse_us(street: Street, job: LiveJob, code: str = "deadline") -> bytes:
    host_id = lease_of(job).host_id
    await fail_as_reported(street.core, job, Fail(lease_of(job).id, code, "it is yours", "coordinator"))
    return host_id


def failed(street: Street, host_id: bytes) -> int:
    return street.core.fleet.get(host_id).stored().jobs_failed


class TestTheCoordinatorIsAtFault:
    async def test_while_there_is_time_another_host_goes_on_and_this_one_has_failed(self, street: Street) -> None:
        await street.host(offer=GOES_ON), await street.host(offer=GOES_ON)
        job = await street.submit()
        deliver(street.core, job, 2)

        host_id = await accuse_us(street, job)

        assert job.state is JobState.RUNNING and lease_of(job).host_id != host_id
        assert failed(street, host_id) == 1
        await finish_well(street.core, job)
        assert job.state is JobState.COMPLETED

    @pytest.mark.parametrize("true", ["its time is over", "the lease is older than this process"])
    async def test_where_it_can_be_true_nobody_has_failed(self, street: Street, true: str) -> None:
        await street.host(offer=GOES_ON)
        job = await street.submit()
        if true == "its time is over":
            street.clock.advance(seconds=street.core.settings.job_ttl_s)
        else:
            lease_of(job).revived = True

        host_id = await accuse_us(street, job)

        assert failed(street, host_id) == 0


class TestStopped:
    async def test_who_stops_unasked_again_and_again_has_failed(self, street: Street) -> None:
        hosts = [(await street.host(offer=GOES_ON))[0] for _ in range(2)]
        job = await street.submit()

        given = []
        while not job.over:
            given.append(lease_of(job).host_id)
            await complete(street.core, job, finish_reason=STOPPED, usage=Usage())

        assert sorted(given) == sorted(hosts * 2)
        assert (job.state, job.error_code) == (JobState.FAILED, "stopped")
        assert [failed(street, host_id) for host_id in hosts] == [1, 1]
        states = [each.state for each in await street.core.jobs.attempts(job.id)]
        assert states == [AttemptState.LOST] * 2 + [AttemptState.FAILED] * 2
