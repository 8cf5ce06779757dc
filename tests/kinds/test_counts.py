"""Kinds that count otherwise: what goes in beside what comes out, several units a stage, and counts and prices at their
bounds."""

import contextlib
from pathlib import Path

import msgspec
import pytest

from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.errors import BadSegment
from comptoir.dispatch.stream import complete
from comptoir.jobs import Fault, JobState, LiveJob
from comptoir.kit.errors import InvalidField
from comptoir.kit.money import AMOUNT_UUSD_MAX
from comptoir.kit.signing import SigningKey
from comptoir.ledger import InsufficientCredit
from comptoir.link import COUNT_MAX, Usage
from comptoir.reports import audit
from comptoir.transports.job_message import job_message
from tests.dispatch.continuing import earned, lease_of, receipt
from tests.kinds.ends import adds_up, pay_of, pieces, sign
from tests.kinds.toys import (
    EACH_UUSD,
    GRAIN,
    LETTER,
    Dearest,
    Measured,
    Once,
    Staged,
    WholeOrNothing,
    buy,
    offer,
    selling,
)
from tests.street import FakeChannel, Street


class TestMeasured:
    SECONDS = b"s" * 90

    async def done(
        self, street: Street, job: LiveJob, *, seconds: int, letters: int, key: SigningKey | None = None
    ) -> None:
        pieces(street, job, *["x"] * letters, count=1)
        usage = Usage(seconds, letters)
        signature = sign(job, key, usage) if key is not None else b""
        await complete(
            street.core,
            job,
            finish_reason="stop",
            usage=usage,
            signature=signature,
            running_hash=job.running_hash if key else b"",
        )

    @pytest.mark.parametrize(
        ("said", "paid"),
        [(90, 90), (10, 10), (0, 0), (91, 90), (2**31 - 1, 90)],
        ids=["all", "less", "none", "more than is held", "much more"],
    )
    async def test_what_goes_in_is_paid_as_counted_up_to_the_hold(self, tmp_path: Path, said: int, paid: int) -> None:
        key = SigningKey.generate()
        async with selling(tmp_path) as street:
            host, _ = await street.host(offer=offer(Measured, more=7), public_key=key.public_key)
            job = await buy(street, Measured, most=3, body=self.SECONDS)
            assert job.terms.hold_uusd == 90 * 7 + 3 * EACH_UUSD
            await self.done(street, job, seconds=said, letters=3, key=key)
            cost = paid * 7 + 3 * EACH_UUSD
            await adds_up(street, job, JobState.COMPLETED, cost_uusd=cost)
            assert await earned(street, host) == pay_of(cost)
            units = [(unit.unit, unit.count) for unit in (await receipt(street, job)).units]
            assert units == [("audio_second", paid), ("letter", 3)]
            (segment,) = (await receipt(street, job)).segments
            assert segment.units[0].claimed == (said if said > paid else None)

    async def test_it_may_be_free(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            await street.host(offer=offer(Measured, more=0))
            job = await buy(street, Measured, most=3, body=self.SECONDS)
            await self.done(street, job, seconds=90, letters=2)
            await adds_up(street, job, JobState.COMPLETED, cost_uusd=2 * EACH_UUSD)

    @pytest.mark.parametrize(
        ("liar", "first_uusd", "second_uusd"),
        [(False, 90 * 7 + 2 * EACH_UUSD, 2 * EACH_UUSD), (True, 0, 90 * 7 + 2 * EACH_UUSD)],
        ids=["to the one that took it in", "to the next, where that one is not paid"],
    )
    async def test_over_two_hosts_it_is_paid_once(
        self, tmp_path: Path, liar: bool, first_uusd: int, second_uusd: int
    ) -> None:
        key = SigningKey.generate()
        async with selling(tmp_path) as street:
            said = offer(Measured, more=7, can_continue=True)
            first, _ = await street.host(offer=said)
            second, _ = await street.host(offer=said, public_key=key.public_key)
            job = await buy(street, Measured, most=5, body=self.SECONDS)
            pieces(street, job, "a", "b", count=1)
            await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST, unpaid=liar)
            await self.done(street, job, seconds=90, letters=2, key=key)
            await adds_up(street, job, JobState.COMPLETED, cost_uusd=first_uusd + second_uusd)
            assert (await earned(street, first), await earned(street, second)) == (
                pay_of(first_uusd),
                pay_of(second_uusd),
            )

    async def test_a_kind_that_counts_nothing_that_goes_in_takes_no_count_of_it(self, tmp_path: Path) -> None:
        """Its host would have signed one that the receipt has no place for, and the receipt would not verify."""
        key = SigningKey.generate()
        async with selling(tmp_path) as street:
            await street.host(offer=offer(Once), public_key=key.public_key)
            job = await buy(street, Once)
            pieces(street, job, "done", count=1)
            usage = Usage(7, 1)
            with pytest.raises(BadSegment, match="nothing is counted that goes in"):
                await complete(
                    street.core,
                    job,
                    finish_reason="stop",
                    usage=usage,
                    signature=sign(job, key, usage),
                    running_hash=job.running_hash,
                )
            await adds_up(street, job, JobState.FAILED, fault=Fault.HOST)


class TestStaged:
    """Two stages of three sheets and of two."""

    async def chain(self, street: Street, *keys: bytes) -> tuple[LiveJob, list[bytes], list[FakeChannel]]:
        hosts = [await street.host(offer=offer(Staged, name=name, uusd=uusd)) for name, uusd in (("a", 10), ("b", 100))]
        job = await buy(street, Staged, most=5, body=b"3,2", stages=("a", "b"))
        return job, [host for host, _ in hosts], [channel for _, channel in hosts]

    async def stage(self, street: Street, job: LiveJob, count: int) -> None:
        pieces(street, job, *["sheet"] * count, count=1)
        pieces(street, job, "end")
        await complete(street.core, job, finish_reason="stop", usage=Usage(0, count))

    async def test_each_is_bought_and_paid_at_its_own_price(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            job, hosts, _ = await self.chain(street)
            assert job.terms.hold_uusd == 3 * 10 + 2 * 100
            await self.stage(street, job, 3)
            await self.stage(street, job, 1)
            await adds_up(street, job, JobState.COMPLETED, cost_uusd=3 * 10 + 100)
            assert [await earned(street, host) for host in hosts] == [pay_of(30), pay_of(100)]
            assert [segment.units[0].count for segment in (await receipt(street, job)).segments] == [3, 1]

    async def test_a_stage_is_asked_for_its_own_bound_behind_what_was_made(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            job, _, _ = await self.chain(street)
            assert job_message(job, lease_of(job), now_ms=0).max_tokens == 3
            await self.stage(street, job, 2)
            message = job_message(job, lease_of(job), now_ms=0)
            assert message.max_tokens - sum([frame.tokens for frame in message.prefix]) == 2
            await cancel(street.core, job)

    async def test_what_is_beyond_its_bound_is_not_taken_from_the_next_stages_host(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            job, (greedy, honest), _ = await self.chain(street)
            other, _ = await street.host(offer=offer(Staged, name="a", uusd=10))
            with pytest.raises(BadSegment, match="at most 3 sheets, not 5"):
                await self.stage(street, job, 5)
            assert lease_of(job).host_id == other
            await self.stage(street, job, 3)
            await self.stage(street, job, 2)
            await adds_up(street, job, JobState.COMPLETED, cost_uusd=230)
            assert [await earned(street, host) for host in (greedy, honest)] == [0, pay_of(200)]

    @pytest.mark.parametrize(("count", "kept"), [(3, True), (5, False)])
    async def test_one_that_is_lost_behind_its_end_has_made_its_stage_if_it_kept_the_bound(
        self, tmp_path: Path, count: int, kept: bool
    ) -> None:
        async with selling(tmp_path) as street:
            job, _, _ = await self.chain(street)
            await street.host(offer=offer(Staged, name="a", uusd=10))
            pieces(street, job, *["sheet"] * count, count=1)
            pieces(street, job, "end")
            await revoke_lease(street.core, job, lease_of(job), "it broke", fault=Fault.HOST)
            assert (job.kind.stage(job), job.model, job.count) == ((1, "b", 3) if kept else (0, "a", 0))
            await cancel(street.core, job)
            await adds_up(street, job, JobState.CANCELLED, cost_uusd=30 * kept, fault=Fault.BUYER)

    async def test_it_goes_on_at_its_stage_after_a_restart(self, tmp_path: Path, database_address: str) -> None:
        async with selling(tmp_path, database=database_address) as street:
            job, (first, second), _ = await self.chain(street)
            await self.stage(street, job, 2)
            pieces(street, job, "sheet", count=1)
            buyer = street.buyer_id

        async with selling(tmp_path, database=database_address, buyer=buyer) as street:
            again = street.core.jobs.live.get(job.id)
            assert again is not None
            street.link(second, FakeChannel())
            assert (again.kind.stage(again), again.model, again.count, lease_of(again).host_id) == (1, "b", 2, second)
            await self.stage(street, again, 2)
            await adds_up(street, again, JobState.COMPLETED, cost_uusd=20 + 200)
            assert await earned(street, first) == pay_of(20)


class TestExtremes:
    async def test_an_answer_of_nothing_costs_nothing(self, tmp_path: Path) -> None:
        async with selling(tmp_path) as street:
            await street.host(offer=offer(Once))
            job = await buy(street, Once)
            pieces(street, job, "a", "b", count=0)
            await complete(street.core, job, finish_reason="stop", usage=Usage())
            await adds_up(street, job, JobState.COMPLETED)

    @pytest.mark.parametrize(("letters", "cost"), [(1, 0), (2, 1), (3, 2), (5, 2), (1_000, 500)])
    async def test_a_price_below_a_micro_dollar_a_unit_is_rounded_once_half_to_even(
        self, tmp_path: Path, letters: int, cost: int
    ) -> None:
        """Half a micro-dollar a letter, however it is told."""
        async with selling(tmp_path) as street:
            said = msgspec.structs.replace(offer(WholeOrNothing), prices={"letter": 500_000})
            await street.host(offer=said)
            job = await buy(street, WholeOrNothing, most=1_000)
            assert LETTER.price_uusd(500_000) == 500
            pieces(street, job, "x" * letters, count=letters)
            await complete(street.core, job, finish_reason="stop", usage=Usage())
            await adds_up(street, job, JobState.COMPLETED, cost_uusd=cost)

    async def test_the_most_of_the_dearest_fits_both_databases(self, tmp_path: Path, database_address: str) -> None:
        """What one deposit may pay is settled to the last unit, and what no credit covers is refused as that."""
        async with selling(tmp_path, database=database_address, fee_bps=0) as street:
            await street.core.ledger.deposit(owner_id=street.buyer_id, amount_uusd=AMOUNT_UUSD_MAX)
            dear, _ = await street.host(offer=offer(Dearest, uusd=200_000, more=200_000))
            job = await buy(street, Dearest, most=COUNT_MAX)
            cost = 2 * COUNT_MAX * 200_000
            assert job.terms.hold_uusd == cost
            pieces(street, job, "all", count=COUNT_MAX)
            await complete(street.core, job, finish_reason="stop", usage=Usage(COUNT_MAX, COUNT_MAX))
            assert (job.state, job.cost_uusd, await earned(street, dear)) == (JobState.COMPLETED, cost, cost)
            assert (await receipt(street, job)).amounts.charged_uusd == cost

            street.unlink(dear)
            await street.host(offer=offer(Dearest, name="dearest", uusd=10**9, more=10**9))
            with pytest.raises(InsufficientCredit):
                await buy(street, Dearest, name="dearest", most=COUNT_MAX)
            assert 2 * COUNT_MAX * 10**9 < 2**63
            assert await audit(street.core.db) == []

    @pytest.mark.parametrize(("more", "refused"), [(10**9, False), (10**9 + 1, True)])
    async def test_what_goes_in_has_a_highest_price_of_its_own(self, tmp_path: Path, more: int, refused: bool) -> None:
        async with selling(tmp_path) as street:
            with pytest.raises(InvalidField, match="price_in") if refused else contextlib.nullcontext():
                await street.host(offer=offer(Dearest, more=more))

    @pytest.mark.parametrize(("count", "said"), [(0, "0 grains"), (1, "1 grain"), (COUNT_MAX, "2,147,483,647 grains")])
    def test_a_count_is_said(self, count: int, said: str) -> None:
        assert GRAIN.format(count) == said
