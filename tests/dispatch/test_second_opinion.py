"""Second opinions: a host that calls the request bad is believed when another one says so too; and until then nobody is
blamed, nobody is paid, and the buyer waits for one more answer."""

from pathlib import Path

import pytest
from msgspec import structs

from comptoir.dispatch.onboard import add_user
from comptoir.dispatch.stream import fail
from comptoir.dispatch.submit import submit
from comptoir.hosts.reputation import START
from comptoir.jobs import Fault, JobState, LiveJob
from comptoir.kinds import Kind, Resume
from comptoir.kit.ids import new_id
from comptoir.reports import audit
from tests.dispatch.continuing import earned, lease_of
from tests.dispatch.test_advance import chain_order, container, done
from tests.street import GOES_ON, OFFER, FakeChannel, Street, deliver, finish_well, open_street, order

BODY = b'{"error":{"message":"temperature is too hot"}}'


async def accuse(street: Street, job: LiveJob, *, message: str = "no") -> bytes:
    """Have the host of *job* call its request bad; return the host."""
    host_id = lease_of(job).host_id
    await fail(street.core, job, code="bad_request", message=message, fault=Fault.BUYER, status=400, body=BODY)
    return host_id


def outcomes(street: Street, host_id: bytes) -> tuple[int, int, int]:
    stored = street.core.fleet.get(host_id).stored()
    return stored.jobs_done, stored.jobs_failed, stored.jobs_lost


def standing(street: Street, host_id: bytes) -> float:
    return street.core.fleet.explain_reputation(host_id).score


async def proven(street: Street, host_id: bytes, *, buyers: int = 4) -> None:
    """Give a host a good name."""
    for n in range(buyers):
        street.core.fleet.outcome(host_id, "done", buyer=bytes([n]), tokens=1, paid_uusd=100)


class TestASecondHostAgrees:
    @pytest.mark.parametrize("detached", [True, False], ids=["detached", "attached"])
    async def test_the_buyer_gets_the_error_nobody_is_paid_and_a_small_doubt_remains(
        self, street: Street, detached: bool
    ) -> None:
        await street.host(offer=GOES_ON), await street.host(offer=GOES_ON)
        job = await street.submit(detached=detached)
        deliver(street.core, job, 2)

        first = await accuse(street, job, message="says the first")
        assert job.state is JobState.RUNNING and lease_of(job).host_id != first
        second = await accuse(street, job, message="says the second")

        assert (job.state, job.fault, job.error_code, job.error_status) == (
            JobState.FAILED,
            Fault.BUYER,
            "bad_request",
            400,
        )
        assert (job.error_message, job.error_body, job.cost_uusd, job.losses) == ("says the second", BODY, 0, 0)
        for host_id in (first, second):
            assert (outcomes(street, host_id), standing(street, host_id)) == ((0, 0, 0), 1 / 4.5)
            assert await earned(street, host_id) == 0
        attempts = await street.core.jobs.attempts(job.id)
        assert [(each.state, each.fault) for each in attempts] == [("failed", "buyer")] * 2
        assert await audit(street.core.db) == []

    async def test_two_hosts_of_one_owner_are_one(self, street: Street) -> None:
        owner = new_id()
        for _ in range(2):
            await proven(street, (await street.host(owner_id=owner))[0])
        job = await street.submit()
        honest, _ = await street.host()
        street.core.fleet.reserve(honest, "m")

        await accuse(street, job)
        await accuse(street, job)
        assert job.state is JobState.QUEUED
        street.core.fleet.release(honest)
        await street.core.background.drain_tasks()

        assert lease_of(job).host_id == honest

    async def test_the_judge_is_the_most_trusted_host_and_not_the_cheapest(self, street: Street) -> None:
        """Else cheap hosts that conspire are asked one after the other."""
        await street.host()
        job = await street.submit()
        for buyers in (2, 6, 4):
            host_id, _ = await street.host(offer=structs.replace(OFFER, price_out_uusd_per_mtok=10**7 * buyers))
            await proven(street, host_id, buyers=buyers)
        cheap, trusted, _ = [host.id for host in street.core.fleet][1:]

        await accuse(street, job)

        assert lease_of(job).host_id == trusted != cheap

    async def test_a_newcomers_word_is_judged_by_a_proven_host(self, street: Street) -> None:
        """Else two strangers turn away whom they like."""
        await street.host()
        job = await street.submit()
        honest, _ = await street.host()
        await proven(street, honest)
        street.core.fleet.reserve(honest, "m")
        await street.host()

        await accuse(street, job)
        assert job.state is JobState.QUEUED
        street.core.fleet.release(honest)
        await street.core.background.drain_tasks()

        assert lease_of(job).host_id == honest


class TestNoSecondHost:
    async def test_the_first_is_believed_and_nothing_counts(self, street: Street) -> None:
        host_id, _ = await street.host()
        job = await street.submit()
        deliver(street.core, job, 3)

        await accuse(street, job, message="its words")

        assert (job.state, job.fault, job.error_message, job.cost_uusd) == (
            JobState.FAILED, Fault.BUYER, "its words", 0
        )  # fmt: skip
        assert (outcomes(street, host_id), standing(street, host_id)) == ((0, 0, 0), START)
        assert await audit(street.core.db) == []

    async def test_one_that_is_busy_is_waited_for(self, street: Street) -> None:
        await street.host()
        job = await street.submit()
        other, _ = await street.host()
        street.core.fleet.reserve(other, "m")

        await accuse(street, job)
        assert job.state is JobState.QUEUED
        street.core.fleet.release(other)
        await street.core.background.drain_tasks()

        assert lease_of(job).host_id == other

    async def test_what_must_not_run_twice_is_believed_at_once(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await street.host(), await street.host()
        job = await street.submit()
        monkeypatch.setattr(Kind, "resume", lambda self, job: Resume.NEVER)
        deliver(street.core, job, 1)

        await accuse(street, job)

        assert (job.state, job.fault, job.cost_uusd) == (JobState.FAILED, Fault.BUYER, 0)
        assert len(await street.core.jobs.attempts(job.id)) == 1


class TestASecondHostAnswers:
    async def test_the_first_has_failed_and_the_buyer_notices_nothing(self, street: Street) -> None:
        await street.host(), await street.host()
        job = await street.submit()

        first = await accuse(street, job)
        second = lease_of(job).host_id
        await finish_well(street.core, job)

        assert (job.state, job.losses, job.cost_uusd) == (JobState.COMPLETED, 0, 501)
        assert outcomes(street, first) == (0, 1, 0) and standing(street, first) < START
        assert outcomes(street, second) == (1, 0, 0) and await earned(street, second)
        assert await earned(street, first) == 0

    async def test_four_accusations_are_no_four_losses(self, street: Street) -> None:
        """Hosts of one owner that all say so do not use up the attempts."""
        owner = new_id()
        for _ in range(6):
            await proven(street, (await street.host(owner_id=owner))[0])
        job = await street.submit()
        honest, _ = await street.host()

        accusers = {await accuse(street, job) for _ in range(6)}
        await proven(street, honest)
        await finish_well(street.core, job)

        assert (job.state, len(accusers)) == (JobState.COMPLETED, 6)
        assert [outcomes(street, host_id) for host_id in accusers] == [(4, 1, 0)] * 6

    async def test_a_host_that_nobody_knows_does_not_judge_one_that_is_proven(self, street: Street) -> None:
        await street.host()
        job = await street.submit()
        await street.host()
        first = lease_of(job).host_id
        await proven(street, first)
        stood = standing(street, first)

        await accuse(street, job)
        await finish_well(street.core, job)

        assert job.state is JobState.COMPLETED
        assert (standing(street, first), outcomes(street, first)) == (stood, (4, 0, 0))

    async def test_a_second_host_that_fails_says_nothing_of_the_request(self, street: Street) -> None:
        for _ in range(3):
            await street.host()
        job = await street.submit()

        first = await accuse(street, job)
        second = lease_of(job).host_id
        await fail(street.core, job, code="engine_failed", message="broke", fault=Fault.HOST)
        await finish_well(street.core, job)

        assert (outcomes(street, first), outcomes(street, second)) == ((0, 1, 0), (0, 1, 0))
        assert (job.state, job.losses) == (JobState.COMPLETED, 1)


class TestTheAttackThatWasSeen:
    async def test_a_free_host_with_a_farmed_name_turns_nobody_away(self, street: Street) -> None:
        """It bought from itself what had the best name of all; then each of its victims got a 400."""
        eve = (await add_user(street.core, username="eve", email=None, password=None)).user.id
        free = structs.replace(OFFER, price_in_uusd_per_mtok=0, price_out_uusd_per_mtok=0)
        attacker, _ = await street.host(offer=free, owner_id=eve)
        for _ in range(40):
            await finish_well(street.core, await submit(street.core, order(eve)))
        assert (outcomes(street, attacker), standing(street, attacker)) == ((40, 0, 0), START)
        await street.host(slots=2)

        victims, asked = [], 0
        for _ in range(10):
            job = await street.submit()
            victims.append(job)
            if lease_of(job).host_id == attacker:
                asked += 1
                await accuse(street, job)
            await finish_well(street.core, job)

        assert [job.state for job in victims] == [JobState.COMPLETED] * 10
        assert outcomes(street, attacker) == (40, asked, 0) and asked >= 1
        assert standing(street, attacker) < START


class TestChains:
    async def test_each_container_has_its_own_opinions(self, street: Street) -> None:
        a1, _ = await street.host(offer=container("a"))
        job = await submit(street.core, chain_order(street, "a", "a"))
        await street.host(offer=container("a"))

        await accuse(street, job)
        await done(street, job)
        assert (outcomes(street, a1), job.accusers) == ((0, 1, 0), frozenset())
        second = await accuse(street, job)
        await accuse(street, job)

        assert (job.state, job.fault, job.cost_uusd) == (JobState.FAILED, Fault.BUYER, 1_000)
        assert outcomes(street, second)[1] == int(second == a1)
        assert await audit(street.core.db) == []


class TestARestartInBetween:
    async def test_the_first_is_not_asked_again_and_judged_by_the_answer(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            await street.host()
            job = await street.submit()
            other, _ = await street.host()
            street.core.fleet.reserve(other, "m")
            first = await accuse(street, job)
        async with open_street(tmp_path, buyer=street.buyer_id) as street:
            revived = street.core.jobs.live.get(job.id)
            assert revived is not None and revived.accusers == {first}
            street.link(first, FakeChannel())
            street.link(other, FakeChannel())
            await street.core.background.drain_tasks()
            assert lease_of(revived).host_id == other

            await finish_well(street.core, revived)

            assert (revived.state, outcomes(street, first)) == (JobState.COMPLETED, (0, 1, 0))

    async def test_or_believed_by_the_second(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            await street.host()
            job = await street.submit()
            other, _ = await street.host()
            street.core.fleet.reserve(other, "m")
            await accuse(street, job)
        async with open_street(tmp_path, buyer=street.buyer_id) as street:
            revived = street.core.jobs.live.get(job.id)
            assert revived is not None
            street.link(other, FakeChannel())
            await street.core.background.drain_tasks()

            await accuse(street, revived)

            assert (revived.state, revived.fault, revived.cost_uusd) == (JobState.FAILED, Fault.BUYER, 0)
