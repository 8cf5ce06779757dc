"""Promotional credit buys anywhere it is taken: a host that takes none is given no job that might be paid with it."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.errors import NoHostPossible
from comptoir.dispatch.submit import submit
from comptoir.reports import audit
from tests.street import OFFER, Street, finish_well, open_street, order

OWN_MONEY = msgspec.structs.replace(OFFER, no_promotions=True)
DEARER = msgspec.structs.replace(OFFER, price_out_uusd_per_mtok=2 * OFFER.price_out_uusd_per_mtok)
HOLD_UUSD = 1_100
"""More than a job of the tests holds at the cheaper host."""


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    """A buyer with a little promotional credit."""
    async with open_street(tmp_path, signup_credits_uusd=100_000) as opened:
        yield opened
        assert await audit(opened.core.db) == []


async def pay_in(street: Street, amount_uusd: int = 100_000) -> None:
    await street.core.ledger.deposit(owner_id=street.buyer_id, amount_uusd=amount_uusd)


class TestSubmit:
    @pytest.mark.parametrize("seen", [False, True])
    async def test_promotional_credit_goes_to_a_dearer_host_that_takes_it(self, street: Street, seen: bool) -> None:
        """Whether the buyer's credit has been seen here before or is only known once the hold is written."""
        await street.host(offer=OWN_MONEY, slots=4)
        takes_it, line = await street.host(offer=DEARER, slots=4)
        if seen:
            await finish_well(street.core, await street.submit())

        job = await street.submit()

        assert job.lease is not None and job.lease.host_id == takes_it
        assert not job.own_money and len(line.sent) == 1 + seen
        assert sum(host.slots.running for host in street.core.fleet) == 1
        assert street.core.state(Buyers).in_flight.total(street.buyer_id) == 1

    @pytest.mark.parametrize("busy", [False, True])
    async def test_where_nobody_takes_it_the_refusal_says_so(self, street: Street, busy: bool) -> None:
        host_id, _ = await street.host(offer=OWN_MONEY)
        if busy:
            street.core.fleet.reserve(host_id, OFFER.name)

        for _ in range(2):
            with pytest.raises(NoHostPossible, match=r"promotions turns away 1 .*takes no promotional credit"):
                await street.submit()

        assert street.core.state(Buyers).in_flight.total(street.buyer_id) == 0

    async def test_money_of_ones_own_buys_there_and_is_what_is_spent(self, street: Street) -> None:
        host_id, _ = await street.host(offer=OWN_MONEY)
        with pytest.raises(NoHostPossible):
            await street.submit()
        await pay_in(street)

        job = await street.submit()
        await finish_well(street.core, job)

        host, buyer = (await street.core.ledger.accounts([host_id, street.buyer_id])).values()
        if host.id != host_id:
            host, buyer = buyer, host
        assert job.own_money and host.payable_uusd == host.balance_uusd > 0
        assert buyer.promo_uusd == 100_000 and buyer.balance_uusd == 200_000 - job.cost_uusd

    async def test_where_both_would_do_the_promotional_part_is_spent_first(self, street: Street) -> None:
        host_id, _ = await street.host()
        await pay_in(street)

        job = await street.submit()
        await finish_well(street.core, job)

        host = await street.core.ledger.account(host_id)
        assert host.promo_uusd == host.balance_uusd > 0 == host.payable_uusd
        assert (await street.core.ledger.account(street.buyer_id)).promo_uusd == 100_000 - job.cost_uusd

    async def test_the_ledger_decides_whatever_was_seen_of_the_credit(self, street: Street) -> None:
        """Another coordinator may have spent what was own money when it was last seen: the host that had begun is
        stopped."""
        _, stopped = await street.host(offer=OWN_MONEY)
        takes_it, _ = await street.host(offer=DEARER)
        street.core.state(Buyers).note_credit(street.buyer_id, 10**9)

        job = await street.submit()

        assert len(stopped.sent) == 1 == len(stopped.cancelled)
        assert job.lease is not None and job.lease.host_id == takes_it
        assert sum(host.slots.running for host in street.core.fleet) == 1


class TestWaiting:
    @pytest.mark.parametrize("paid_in", [False, True])
    async def test_only_own_money_waits_for_a_host_that_takes_nothing_else(self, street: Street, paid_in: bool) -> None:
        dearer, _ = await street.host(offer=DEARER)
        frees, _ = await street.host(offer=OWN_MONEY)
        if paid_in:
            await pay_in(street)
        for host_id in (dearer, frees):
            street.core.fleet.reserve(host_id, OFFER.name)
        job = await street.submit()
        assert job.lease is None

        street.core.fleet.release(frees)
        await street.core.background.drain_tasks()
        given = job.lease
        street.core.fleet.release(dearer)
        await street.core.background.drain_tasks()

        assert job.lease is not None and (given is not None) is paid_in
        assert job.lease.host_id == (frees if paid_in else dearer)


class TestRecover:
    @pytest.mark.parametrize("paid_in", [False, True])
    async def test_it_is_remembered_over_a_restart(self, tmp_path: Path, paid_in: bool) -> None:
        async with open_street(tmp_path) as street:
            host_id, _ = await street.host(offer=OFFER)
            street.core.fleet.reserve(host_id, OFFER.name)
            if paid_in:
                await pay_in(street)
            job = await submit(street.core, order(street.buyer_id))

        async with open_street(tmp_path, buyer=street.buyer_id) as street:
            again = street.core.jobs.live.get(job.id)
            assert again is not None and again is not job
            assert again.own_money is paid_in
