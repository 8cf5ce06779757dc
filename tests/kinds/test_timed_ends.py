"""How work sold by time ends before its result is there: who cancels it has used the time, who is lost has not."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.errors import BadSegment
from comptoir.dispatch.expire import sweep
from comptoir.jobs import Fault, JobState, LiveJob
from comptoir.kinds.files import WorkProgress, file_frame
from comptoir.link import Frame
from tests.dispatch.continuing import earned, lease_of
from tests.kinds.ends import pay_of
from tests.kinds.test_timed import BODY, MOST, finish, receipt, result, say
from tests.kinds.toys import Drawing, Program, buy, offer, selling
from tests.street import Street

OFFER = offer(Program, uusd=1, more=2, can_continue=True)


def at(count: int | None) -> Frame:
    return file_frame(progress=WorkProgress(count=count))


async def begun(street: Street) -> LiveJob:
    return await buy(street, Program, most=MOST, body=BODY)


class TestCancelled:
    @pytest.mark.parametrize(
        ("steps", "paid", "blamed"),
        [
            # (seconds before, what came then)
            ([(5, at(4_900))], 4_900, False),
            ([(5, at(4_900)), (1, file_frame("more\n", stream="stdout"))], 4_900, False),
            ([(1, at(900)), (1, at(1_900)), (1, at(None))], 1_900, False),
            ([(1, at(5_000)), (4, at(None))], 1_011, True),
            ([(5, at(MOST))], 5_015, True),
            ([(5, file_frame("a log\n", stream="stdout"))], 0, False),
            ([], 0, False),
            # What it counted whole is no less for it.
            ([(5, result(4_000, ends=False)), (1, at(3_000))], 4_000, False),
        ],
        ids=["told", "told before", "newest", "told too early", "a lie", "not told", "nothing came", "counted"],
    )
    async def test_the_time_that_its_host_told_is_paid_as_far_as_it_passed(
        self, tmp_path: Path, steps: list[tuple[int, Frame]], paid: int, blamed: bool
    ) -> None:
        """Its log was read meanwhile: else whoever cancels just before the end has an hour's work for nothing."""
        async with selling(tmp_path) as street:
            host, channel = await street.host(offer=OFFER)
            job = await begun(street)
            for seconds, frame in steps:
                street.clock.advance(seconds=seconds)
                say(street, job, frame)
            street.clock.advance(seconds=2)

            await cancel(street.core, job)

            assert (job.state, job.cost_uusd, job.usage.completion_tokens) == (JobState.CANCELLED, paid, paid)
            await receipt(street, job)
            assert await earned(street, host) == pay_of(paid) == channel.closed[-1][2]
            assert street.core.fleet.explain_reputation(host).jobs_failed == blamed

    async def test_a_host_that_was_lost_before_is_not_paid_for_it(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            first, _ = await street.host(offer=OFFER)
            second, _ = await street.host(offer=OFFER)
            job = await begun(street)
            street.clock.advance(seconds=30)
            say(street, job, at(30_000))
            await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)
            street.clock.advance(seconds=5)
            say(street, job, file_frame(begun_again=True), at(4_000))

            await cancel(street.core, job)

            assert (job.cost_uusd, await earned(street, first), await earned(street, second)) == (
                4_000,
                0,
                pay_of(4_000),
            )
            await receipt(street, job)

    async def test_of_what_is_no_time_only_what_came_is_paid_and_nobody_blamed_for_the_rest(
        self, tmp_path: Path
    ) -> None:
        async with selling(tmp_path) as street:
            host, _ = await street.host(offer=offer(Drawing, uusd=1))
            job = await buy(street, Drawing, most=900)
            say(street, job, at(300))

            await cancel(street.core, job)

            assert (job.cost_uusd, job.usage.completion_tokens) == (0, 0)
            assert street.core.fleet.explain_reputation(host).jobs_failed == 0


class TestLost:
    @pytest.mark.parametrize(
        "claim",
        [file_frame("half\n", 20_000, stream="stdout"), result(20_000, ends=False), at(20_000)],
        ids=["beside a log", "with a result that ends nothing", "as progress"],
    )
    async def test_whatever_it_claims_it_is_paid_nothing_and_takes_nothing_from_the_next(
        self, tmp_path: Path, claim: Frame
    ) -> None:
        async with selling(tmp_path) as street:
            first, _ = await street.host(offer=OFFER)
            second, _ = await street.host(offer=OFFER)
            job = await begun(street)
            street.clock.advance(seconds=30)
            say(street, job, claim)
            await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)
            assert job.count == 0
            street.clock.advance(seconds=60)
            say(street, job, file_frame(begun_again=True), result(MOST))

            await finish(street, job, MOST, busy=7_000)

            # Neither for its time nor for the cores that the next one kept busy.
            assert (await earned(street, first), await earned(street, second)) == (0, pay_of(MOST + 2 * 7_000))
            said = await receipt(street, job)
            assert [part.units[1].count for part in said.segments] == [0, MOST]

    async def test_also_where_another_process_goes_on(self, tmp_path: Path, database_address: str) -> None:
        where: dict[str, Any] = {"database": database_address}
        async with selling(tmp_path, **where) as street:
            await street.host(offer=OFFER)
            await street.host(offer=OFFER)
            job, buyer = await begun(street), street.buyer_id
            street.clock.advance(seconds=30)
            say(street, job, result(20_000, ends=False))
            await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)

        async with selling(tmp_path, buyer=buyer, **where) as street:
            revived = street.core.jobs.live.get(job.id)
            assert revived is not None and (revived.count, revived.claimed_beyond) == (0, 20_000)
            street.clock.advance(seconds=5)
            say(street, revived, file_frame(begun_again=True), result(5_000))

            await finish(street, revived, 5_000)

            assert revived.cost_uusd == 5_000
            await receipt(street, revived)


class TestBroken:
    async def test_one_that_expires_is_free(self, tmp_path: Path) -> None:
        async with selling(tmp_path, job_ttl_s=1.0, charge_for_broken_answers=True) as street:
            host, _ = await street.host(offer=OFFER)
            job = await begun(street)
            while not job.over:
                say(street, job, at(1_000))
                street.clock.advance(seconds=4)
                street.core.fleet.seen(host)
                await sweep(street.core)

            assert (job.state, job.cost_uusd) == (JobState.EXPIRED, 0)
            await receipt(street, job)

    async def test_an_end_without_its_result_is_none(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            host, _ = await street.host(offer=OFFER)
            job = await begun(street)
            street.clock.advance(seconds=5)
            say(street, job, file_frame("a log\n", 5_000, stream="stdout"))

            with pytest.raises(BadSegment):
                await finish(street, job, 5_000)

            assert (job.state, job.cost_uusd, await earned(street, host)) == (JobState.FAILED, 0, 0)


class TestUsed:
    @pytest.mark.parametrize(
        ("frames", "used"),
        [
            ([], 0),
            ([at(5), at(7), at(None), file_frame("7", stream="stdout")], 7),
            ([file_frame("", 900, result=msgspec.Raw(b"1"))], 0),
            ([Frame("", 0, b'{"progress":{"count":"many"}}')], 0),
        ],
    )
    def test_is_the_newest_that_was_told(self, frames: list[Frame], used: int) -> None:
        assert Program().used(frames) == used
        assert Drawing().used(frames) == 0
