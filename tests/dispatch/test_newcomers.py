"""Newcomers among a job's attempts: never all of them, and one of a group."""

from comptoir.dispatch.expire import sweep
from comptoir.dispatch.onboard import add_host
from comptoir.dispatch.stream import fail
from comptoir.hosts import DONE, LINK, LOST, NewHost
from comptoir.jobs import Fault, JobState, LiveJob
from comptoir.reports import audit
from comptoir.routing import Candidate
from tests.dispatch.continuing import lease_of
from tests.street import GOES_ON, MODEL, FakeChannel, Street, finish_well

OWNERS = [bytes([n]) * 16 for n in range(1, 9)]


async def host(street: Street, *, owner: bytes | None = None, block: str | None = None, proven: bool = False) -> bytes:
    """Register and link a host of *owner*, or from a block of addresses, with two slots."""
    new = NewHost(gpu="x", models=(GOES_ON,), slots=2, transport=LINK, owner_id=owner, address_block=block)
    made = await add_host(street.core, new)
    street.link(made.host_id, FakeChannel())
    if proven:
        prove(street, made.host_id)
    return made.host_id


def prove(street: Street, host_id: bytes) -> None:
    for n in range(16):
        street.core.fleet.outcome(host_id, DONE, buyer=bytes([n]) * 16, tokens=10, paid_uusd=1000)


def candidate(street: Street, host_id: bytes) -> Candidate:
    return street.core.fleet.get(host_id).candidates[MODEL]


async def attempts(street: Street, job: LiveJob, *, honest: set[bytes]) -> list[bytes]:
    """Have every host fail *job* that is none of *honest*; return whom it was given to, in order."""
    tried = []
    while job.lease is not None and job.lease.host_id not in honest:
        tried.append(job.lease.host_id)
        await fail(street.core, job, code="boom", message="boom", fault=Fault.HOST)
    return tried


class TestAttempts:
    async def test_fakes_beside_one_proven_host_cost_no_buyer_an_answer(self, street: Street) -> None:
        """31 of them at the same price made 4 of 8 jobs fail: each was tried on four fakes."""
        for n in range(31):
            await host(street, owner=OWNERS[n % 8])
        good = await host(street, proven=True)
        street.core.fleet.reserve(good, MODEL)  # As under load: newcomers get what is beyond it.
        street.core.fleet.reserve(good, MODEL)
        jobs = [await street.submit() for _ in range(8)]

        tried = [await attempts(street, job, honest={good}) for job in jobs]

        assert {len(each) for each in tried} == {2}
        assert all(job.state is JobState.QUEUED for job in jobs)
        for _ in range(2):
            street.core.fleet.release(good)
        for _ in jobs:
            await street.core.background.drain_tasks()
            for job in jobs:
                if job.lease is not None:
                    assert job.lease.host_id == good
                    await finish_well(street.core, job)
        assert {job.state for job in jobs} == {JobState.COMPLETED}
        assert await audit(street.core.db) == []

    async def test_hosts_of_one_owner_get_one_attempt(self, street: Street) -> None:
        same = [await host(street, owner=OWNERS[0]) for _ in range(3)]
        others = [await host(street, owner=owner) for owner in OWNERS[1:3]]
        job = await street.submit()

        tried = await attempts(street, job, honest=set())

        assert len(set(tried[:3]) & set(same)) == 1
        assert set(others) < set(tried[:3])
        assert len(tried) == 4, "nobody is proven: once each group has tried it, all may"

    async def test_hosts_of_one_block_of_addresses_get_one_attempt(self, street: Street) -> None:
        same = [await host(street, block="203.0.113.0/24") for _ in range(3)]
        others = [await host(street, block="198.51.100.0/24"), await host(street)]
        job = await street.submit()

        tried = await attempts(street, job, honest=set())

        assert len(set(tried[:3]) & set(same)) == 1
        assert set(others) < set(tried[:3])

    async def test_on_a_new_post_a_job_goes_through_all_hosts_of_its_only_owner(self, street: Street) -> None:
        same = {await host(street, owner=OWNERS[0]) for _ in range(3)}
        job = await street.submit()

        assert set(await attempts(street, job, honest=set())) == same
        assert job.state is JobState.FAILED


class TestLeftAlone:
    async def test_a_job_that_waits_for_proven_hosts_goes_to_newcomers_when_those_fail(self, street: Street) -> None:
        good = await host(street, proven=True)
        for _ in range(2):
            street.core.fleet.reserve(good, MODEL)
        fakes = {await host(street, owner=owner) for owner in OWNERS[:3]}
        job = await street.submit()
        assert set(await attempts(street, job, honest=set())) < fakes
        await sweep(street.core)
        assert job.state is JobState.QUEUED

        for n in range(16):
            street.core.fleet.outcome(good, LOST, buyer=bytes([n]) * 16)
        assert not candidate(street, good).proven
        await sweep(street.core)
        await street.core.background.drain_tasks()

        assert lease_of(job).host_id in fakes
