"""Quote: a job whose cheap host is busy, lost, silent or gone goes to a dearer one, within what its buyer agreed to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir.dispatch.assign import assign_waiting, revoke_lease, start_verb
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.expire import sweep
from comptoir.dispatch.stream import fail
from comptoir.dispatch.submit import submit
from comptoir.jobs import Fault, JobState, LiveJob
from comptoir.link import ModelOffer
from comptoir.reports import audit
from comptoir.routing import Needs
from tests.dispatch.continuing import lease_of, receipt
from tests.dispatch.test_advance import RUN_UUSD, chain_order, container
from tests.dispatch.test_advance import done as step_done
from tests.dispatch.test_newcomers import prove
from tests.street import GOES_ON, MODEL, SIGNUP_UUSD, Street, deliver, finish_well, open_street, order


def at(price: int) -> ModelOffer:
    """Return an offer whose prompts are free."""
    return msgspec.structs.replace(GOES_ON, price_in_uusd_per_mtok=0, price_out_uusd_per_mtok=price * 1_000_000)


FREE, DEAR = at(0), at(100)
MAX_TOKENS = 10


@pytest.fixture
async def street(street: Street) -> AsyncIterator[Street]:
    """Audit the books after every test."""
    yield street
    assert await audit(street.core.db) == []


async def held(street: Street, job: LiveJob) -> tuple[int, int, int]:
    """Return what is held for *job*: by its terms, its row and the ledger."""
    ((row, hold),) = await street.core.db.fetch(
        "SELECT j.hold_uusd, h.amount_uusd FROM jobs j JOIN holds h ON h.job_id = j.id WHERE j.id = ?", [job.id]
    )
    return job.terms.hold_uusd, row, hold


async def busy(street: Street, job: LiveJob) -> None:
    await fail(street.core, job, code="busy", message="busy", fault=Fault.CAPACITY, status=429)


async def broken(street: Street, job: LiveJob) -> None:
    await fail(street.core, job, code="boom", message="boom", fault=Fault.HOST)


async def gone(street: Street, job: LiveJob) -> None:
    await revoke_lease(street.core, job, lease_of(job), "its link dropped", fault=Fault.HOST)


async def silent(street: Street, job: LiveJob) -> None:
    street.clock.advance(seconds=street.core.settings.lease_s + 1)
    for host in street.core.fleet:
        street.core.fleet.seen(host.id)
    await sweep(street.core)
    await street.core.background.drain_tasks()


LOSSES: list[Callable[[Street, LiveJob], Awaitable[None]]] = [busy, broken, gone, silent]


async def bought_cheap(street: Street, *, offer: ModelOffer = DEAR, **changes: Any) -> tuple[LiveJob, bytes]:
    """Return a job whose host is free of charge, and a dearer host that is free for it."""
    await street.host(offer=FREE)
    dear, _ = await street.host(offer=offer)
    changed = msgspec.structs.replace(order(street.buyer_id, max_tokens=MAX_TOKENS), **changes)
    job = await submit(street.core, changed)
    assert (job.terms.hold_uusd, lease_of(job).rate_out) == (0, 0)
    return job, dear


class TestQuotedAnew:
    @pytest.mark.parametrize("lose", LOSSES)
    async def test_it_goes_on_at_a_dearer_host_whose_price_is_then_held(
        self, street: Street, lose: Callable[[Street, LiveJob], Awaitable[None]]
    ) -> None:
        """At price 0 and always busy, one host answered 10 of 10 buyers with 429 while another was free."""
        job, dear = await bought_cheap(street)

        await lose(street, job)

        assert lease_of(job).host_id == dear
        assert await held(street, job) == (1000, 1000, 1000)
        assert await street.free_uusd() == SIGNUP_UUSD - 1000
        await finish_well(street.core, job, tokens=4)
        assert (job.state, job.cost_uusd) == (JobState.COMPLETED, 400)
        told = await receipt(street, job)
        assert (told.amounts.held_uusd, told.amounts.charged_uusd, told.amounts.released_uusd) == (1000, 400, 600)
        assert await street.free_uusd() == SIGNUP_UUSD - 400

    async def test_the_parts_of_both_hosts_are_billed_at_their_own_prices(self, street: Street) -> None:
        await street.host(offer=at(10))
        await street.host(offer=DEAR)
        job = await street.submit(max_tokens=MAX_TOKENS)
        deliver(street.core, job, 3)
        assert (await held(street, job))[0] == 100

        await broken(street, job)
        await finish_well(street.core, job, tokens=7)

        assert job.cost_uusd == 3 * 10 + 7 * 100
        assert await held(street, job) == (1000, 1000, 1000)
        assert [entry.units[-1].rate for entry in (await receipt(street, job)).segments] == [10_000_000, 100_000_000]

    async def test_a_waiting_job_is_taken_by_a_dearer_host_that_becomes_free(self, street: Street) -> None:
        """Fakes at price 0 that never ask for work set the price to wait at: no honest host could take the job."""
        for _ in range(3):
            cheap, _ = await street.host(offer=FREE)
            street.core.fleet.reserve(cheap, "m")
        await street.host(offer=DEAR)
        first = await street.submit(max_tokens=MAX_TOKENS)
        waiting = await street.submit(max_tokens=MAX_TOKENS)
        assert (first.terms.hold_uusd, waiting.terms.hold_uusd, waiting.lease) == (1000, 0, None)

        await finish_well(street.core, first)
        await street.core.background.drain_tasks()

        assert lease_of(waiting).rate_out == DEAR.price_out_uusd_per_mtok
        assert await held(street, waiting) == (1000, 1000, 1000)
        await finish_well(street.core, waiting)

    async def test_a_stage_of_a_chain_is_quoted_for_itself(self, street: Street) -> None:
        for offer in (container("a"), container("b"), container("b", runs=5)):
            await street.host(offer=offer)
        dear, _ = await street.host(offer=container("a", runs=3))
        job = await submit(street.core, chain_order(street, "a", "b"))
        # The first stage is held at its host's price, the later one at the median.
        assert (job.terms.hold_uusd, job.ceilings) == (6 * RUN_UUSD, (3 * RUN_UUSD, 5 * RUN_UUSD))

        await broken(street, job)
        assert (lease_of(job).host_id, await held(street, job)) == (dear, (8 * RUN_UUSD,) * 3)
        assert [stage.rate_out // 1_000_000 for stage in job.stages] == [3 * RUN_UUSD, 5 * RUN_UUSD]
        await step_done(street, job)
        await step_done(street, job)

        assert job.state is JobState.COMPLETED
        assert (await receipt(street, job)).amounts.held_uusd == 8 * RUN_UUSD


class TestBounds:
    async def test_never_above_what_the_dearest_host_cost_when_it_was_bought(self, street: Street) -> None:
        job, dear = await bought_cheap(street)
        street.core.fleet.replace_offer(dear, (at(101),), 1)

        await busy(street, job)

        assert (job.state, job.error_status, await street.free_uusd()) == (JobState.FAILED, 429, SIGNUP_UUSD)

    async def test_a_newcomer_that_asks_for_a_fortune_sets_no_bound(self, street: Street) -> None:
        _, dear = await bought_cheap(street)
        prove(street, dear)
        fortune, _ = await street.host(offer=at(10_000))
        street.core.fleet.reserve(dear, MODEL)
        job = await submit(street.core, order(street.buyer_id, max_tokens=MAX_TOKENS))
        while job.lease is not None and lease_of(job).host_id != fortune:
            await busy(street, job)

        assert (job.state, job.lease) == (JobState.QUEUED, None)

        street.core.fleet.release(dear)
        assign_waiting(street.core, dear)
        await street.core.background.drain_tasks()

        assert (lease_of(job).host_id, job.terms.hold_uusd) == (dear, MAX_TOKENS * 100)

    async def test_never_beyond_a_rate_cap_of_the_order(self, street: Street) -> None:
        needs = Needs(rate_caps=(("token_out", 99_000_000),))
        job, _ = await bought_cheap(street, needs=needs)

        await busy(street, job)

        assert (job.state, job.error_status) == (JobState.FAILED, 429)

    async def test_without_the_credit_it_ends_and_says_what_is_missing(self, street: Street) -> None:
        job, _ = await bought_cheap(street, offer=at(SIGNUP_UUSD))

        await broken(street, job)

        assert (job.state, job.error_code, job.error_status) == (JobState.FAILED, "insufficient_credit", 402)
        for words in ("cost more than the 0 micro-dollars held", "credit"):
            assert words in job.error_message
        assert (await held(street, job), job.cost_uusd) == ((0, 0, 0), 0)

    async def test_or_waits_for_the_hosts_that_it_can_pay(self, street: Street) -> None:
        job, _ = await bought_cheap(street, offer=at(SIGNUP_UUSD))
        cheap, _ = await street.host(offer=FREE)
        street.core.fleet.reserve(cheap, "m")

        await broken(street, job)
        assert (job.state, job.ceilings) == (JobState.QUEUED, ())
        street.core.fleet.release(cheap)
        await street.core.background.drain_tasks()

        assert lease_of(job).host_id == cheap
        await finish_well(street.core, job)

    async def test_a_host_within_the_hold_changes_nothing(self, street: Street) -> None:
        first, _ = await street.host(offer=at(99))
        await street.host(offer=at(99))
        job = await street.submit(max_tokens=MAX_TOKENS)
        job.may_cost((10_000,))
        terms = job.terms

        await broken(street, job)

        assert lease_of(job).host_id != first
        assert job.terms is terms
        await finish_well(street.core, job)


class TestRaces:
    @pytest.mark.parametrize("refused", [False, True])
    async def test_an_end_waits_until_it_is_known_what_is_held(
        self, street: Street, monkeypatch: pytest.MonkeyPatch, refused: bool
    ) -> None:
        job, _ = await bought_cheap(street, offer=at(SIGNUP_UUSD) if refused else DEAR)
        batch, ends = street.core.db.batch, []

        async def cancelled_meanwhile(verb: Any, item: Any, **named: Any) -> Any:
            if verb is start_verb:
                ends.append(asyncio.ensure_future(cancel(street.core, job)))
                await asyncio.sleep(0)
            return await batch(verb, item, **named)

        monkeypatch.setattr(street.core.db, "batch", cancelled_meanwhile)
        await broken(street, job)
        await asyncio.gather(*ends)

        assert len(ends) == 1
        assert job.over
        told = await receipt(street, job)
        assert (told.amounts.held_uusd,) * 3 == await held(street, job) == ((0 if refused else 1000),) * 3
        assert await street.free_uusd() == SIGNUP_UUSD

    async def test_after_a_restart_what_is_held_stays_and_grows_no_more(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            job, _ = await bought_cheap(street)
            await busy(street, job)
            job_id, buyer = job.id, street.buyer_id
        async with open_street(tmp_path, buyer=buyer) as street:
            again = street.core.jobs.live.get(job_id)
            assert again is not None
            assert (await held(street, again), again.ceilings) == ((1000, 1000, 1000), ())
            await cancel(street.core, again)
            assert await audit(street.core.db) == []
