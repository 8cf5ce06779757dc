"""Extend: an answer whose buyer named no bound goes on as far as context and credit allow, its hold growing ahead of
it."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir.dispatch.assign import start_verb
from comptoir.dispatch.bill import shares
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.deferred_settlements import DeferredSettlements
from comptoir.dispatch.expire import sweep
from comptoir.dispatch.extend import extend_if_due, extend_verb
from comptoir.dispatch.hedge import begin, heard
from comptoir.dispatch.settle import Ending, _parts
from comptoir.dispatch.stream import complete, take_frames
from comptoir.dispatch.submit import submit
from comptoir.hosts import LINK, POLL
from comptoir.jobs import JobFinished, JobState, LiveJob
from comptoir.kit.errors import Unavailable
from comptoir.link import Frame, Frames, ModelOffer, Usage
from comptoir.reports import audit
from tests.dispatch.continuing import lease_of, lost, receipt
from tests.dispatch.test_quote import held
from tests.street import GOES_ON, SIGNUP_UUSD, FakeChannel, Street, deliver, open_street, order

STEP = 10
"""Tokens that a job here begins with."""

TOKEN = 100
"""Micro-dollars for one."""


def at(price: int, **changes: Any) -> ModelOffer:
    """Return an offer whose prompts are free."""
    changes = {"price_in_uusd_per_mtok": 0, "price_out_uusd_per_mtok": price * 1_000_000, **changes}
    return msgspec.structs.replace(GOES_ON, **changes)


@pytest.fixture
async def street(street: Street) -> AsyncIterator[Street]:
    """Audit the books after every test."""
    yield street
    assert await audit(street.core.db) == []


async def buy(street: Street, *, step: int = STEP, **changes: Any) -> LiveJob:
    """Buy an answer without a bound."""
    changed = msgspec.structs.replace(order(street.buyer_id, max_tokens=step), open_ended=True, **changes)
    return await submit(street.core, changed)


async def say(street: Street, job: LiveJob, count: int) -> None:
    """Have the host say *count* tokens more, and wait for what comes of it."""
    deliver(street.core, job, count)
    await street.core.background.drain_tasks()


async def end(street: Street, job: LiveJob, *, reason: str = "stop") -> None:
    await complete(street.core, job, finish_reason=reason, usage=Usage(1, job.segment_count))


class TestGrows:
    async def test_bound_and_hold_are_raised_when_half_a_step_is_left(self, street: Street) -> None:
        _, channel = await street.host(offer=at(TOKEN))
        job = await buy(street)
        assert await held(street, job) == (STEP * TOKEN,) * 3

        await say(street, job, STEP // 2 - 1)
        assert (job.terms.output_max, channel.bounds) == (STEP, [])

        await say(street, job, 1)
        assert (job.terms.output_max, channel.bounds) == (2 * STEP, [(2 * STEP, False)])
        assert await held(street, job) == (2 * STEP * TOKEN,) * 3
        assert await street.free_uusd() == SIGNUP_UUSD - 2 * STEP * TOKEN

    async def test_a_long_answer_is_whole_and_paid_exactly(self, street: Street) -> None:
        await street.host(offer=at(TOKEN))
        job = await buy(street)
        for _ in range(600):
            await say(street, job, 5)

        await end(street, job)

        assert (job.state, job.finish_reason, job.cost_uusd) == (JobState.COMPLETED, "stop", 3000 * TOKEN)
        amounts = (await receipt(street, job)).amounts
        assert (amounts.held_uusd, amounts.charged_uusd) == (job.terms.hold_uusd, 3000 * TOKEN)
        assert await street.free_uusd() == SIGNUP_UUSD - 3000 * TOKEN

    async def test_a_bounded_order_does_not_grow(self, street: Street) -> None:
        _, channel = await street.host(offer=at(TOKEN))
        job = await street.submit(max_tokens=STEP)

        await say(street, job, STEP)

        assert (job.growth, job.terms.output_max, channel.bounds) == (None, STEP, [])

    async def test_a_free_model_grows_at_no_cost(self, street: Street) -> None:
        _, channel = await street.host(offer=at(0))
        job = await buy(street)

        await say(street, job, STEP)
        await say(street, job, STEP)
        await end(street, job)

        assert channel.bounds == [(2 * STEP, False), (3 * STEP, False)]
        assert (job.cost_uusd, (await receipt(street, job)).amounts.held_uusd) == (0, 0)

    async def test_several_choices_have_the_context_each(self, street: Street) -> None:
        _, channel = await street.host(offer=at(TOKEN, context_tokens=40))
        job = await buy(street, step=4 * STEP, answers=4)

        for _ in range(4):
            await say(street, job, 4 * STEP)

        assert job.terms.output_max == 4 * 40
        assert channel.bounds[-1] == (160, True)
        await end(street, job, reason="length")

    @pytest.mark.parametrize(("context", "setting"), [(25, 1_000), (100_000, 25)])
    async def test_it_ends_where_context_or_the_post_ends_it(self, tmp_path: Path, context: int, setting: int) -> None:
        async with open_street(tmp_path, max_tokens_max=setting) as street:
            _, channel = await street.host(offer=at(TOKEN, context_tokens=context))
            job = await buy(street)
            for count in (10, 10, 4):
                await say(street, job, count)
            assert (job.terms.output_max, job.grows) == (25, True)

            await say(street, job, 1)

            assert channel.bounds == [(20, False), (25, False), (25, True)]
            await end(street, job, reason="length")
            assert b"limited_by" not in job.usage.details

    async def test_claims_that_nothing_stands_for_hold_nothing_more(self, street: Street) -> None:
        await street.host(offer=at(TOKEN))
        job = await buy(street, step=100)

        take_frames(street.core, job, 0, [Frame("a", 90)])
        await street.core.background.drain_tasks()

        assert job.terms.output_max == 100

    async def test_a_host_that_hears_nothing_midway_keeps_what_came_with_the_job(self, street: Street) -> None:
        _, channel = await street.host(offer=at(TOKEN), transport=POLL)
        job = await buy(street)

        await say(street, job, STEP)

        assert (job.terms.output_max, channel.bounds) == (STEP, [])
        await end(street, job, reason="length")
        assert job.cost_uusd == STEP * TOKEN

    @pytest.mark.parametrize(("transport", "claim"), [(POLL, 1), (LINK, 40)])
    async def test_silence_at_a_bound_that_nobody_raises_is_silence(
        self, street: Street, transport: str, claim: int
    ) -> None:
        """Else a host that polls, or claims what it did not deliver, could sit on the job until its deadline."""
        host_id, _ = await street.host(offer=at(TOKEN), transport=transport)
        job = await buy(street, step=40)
        take_frames(street.core, job, 0, [Frame("a", claim) for _ in range(40 // claim)])

        street.clock.advance(seconds=street.core.settings.lease_s + 1)
        street.core.fleet.seen(host_id)
        await sweep(street.core)
        await street.core.background.drain_tasks()

        assert (job.lease, job.losses) == (None, 1)

    async def test_a_host_cheaper_than_what_is_held_is_told_more_for_the_same(self, street: Street) -> None:
        """A job that waited is held at the median price; what that covers at its own host is held already."""
        cheap, channel = await street.host(offer=at(40))
        await street.host(offer=at(90))
        await street.host(offer=at(90))
        for host in list(street.core.fleet):
            street.core.fleet.reserve(host.id, "m")
        job = await buy(street)
        assert job.terms.hold_uusd == 900
        street.core.fleet.release(cheap)
        await street.core.background.drain_tasks()

        await say(street, job, 5)

        assert (channel.bounds, await held(street, job)) == ([(20, False)], (900,) * 3)
        await end(street, job)


class TestCredit:
    async def test_it_ends_at_what_credit_covers(self, street: Street) -> None:
        _, channel = await street.host(offer=at(SIGNUP_UUSD // 25))
        job = await buy(street)
        for count in (10, 10, 4):
            await say(street, job, count)
        assert (job.terms.output_max, await street.free_uusd(), job.grows) == (25, 0, True)

        await say(street, job, 1)
        assert channel.bounds == [(20, False), (25, False), (25, True)]
        await end(street, job, reason="length")

        assert (job.finish_reason, job.cost_uusd, await street.free_uusd()) == ("length", SIGNUP_UUSD, 0)
        assert msgspec.json.decode(job.usage.details) == {"limited_by": "credit"}

    async def test_what_the_engine_counted_stands_beside_why_it_ended(self, street: Street) -> None:
        await street.host(offer=at(SIGNUP_UUSD // 10))
        job = await buy(street)
        await say(street, job, STEP)

        await complete(street.core, job, finish_reason="length", usage=Usage(1, STEP, b'{"cached_tokens":7}'))

        assert msgspec.json.decode(job.usage.details) == {"cached_tokens": 7, "limited_by": "credit"}
        assert (await street.core.jobs.answer(job.id))[1] == job.usage.details

    async def test_credit_that_comes_back_in_time_is_used(self, street: Street) -> None:
        _, channel = await street.host(offer=at(SIGNUP_UUSD // 20), slots=2)
        other, job = await buy(street), await buy(street)
        await say(street, job, STEP - 1)
        assert (job.terms.output_max, channel.bounds) == (STEP, [])

        await cancel(street.core, other)
        await say(street, job, 1)

        assert channel.bounds == [(2 * STEP, False)]
        await end(street, job)

    async def test_two_that_grow_in_one_group_share_what_there_is(self, street: Street) -> None:
        await street.host(offer=at(SIGNUP_UUSD // 25), slots=2)
        jobs = [await buy(street), await buy(street)]
        for job in jobs:
            deliver(street.core, job, STEP)

        await street.core.background.drain_tasks()

        assert sum(job.terms.output_max for job in jobs) == 25
        assert await street.free_uusd() == 0
        for job in jobs:
            await end(street, job)

    async def test_a_host_without_promotions_goes_as_far_as_own_money(self, street: Street) -> None:
        await street.own_money(but_uusd=SIGNUP_UUSD - 15 * TOKEN)
        _, channel = await street.host(offer=at(TOKEN, no_promotions=True))
        job = await buy(street)

        await say(street, job, STEP)
        assert channel.bounds == [(15, False)]
        await say(street, job, 5)

        assert channel.bounds[-1] == (15, True)
        await end(street, job, reason="length")
        assert job.cost_uusd == 15 * TOKEN


class TestNextHost:
    async def test_it_gets_the_raised_bound(self, street: Street) -> None:
        await street.host(offer=at(TOKEN))
        await street.host(offer=at(TOKEN))
        job = await buy(street)
        await say(street, job, 8)

        first = await lost(street, job)

        assert lease_of(job).host_id != first
        assert (job.terms.output_max, await held(street, job)) == (20, (2000,) * 3)
        await say(street, job, 8)
        assert job.terms.output_max == 30
        await end(street, job)
        assert job.cost_uusd == 16 * TOKEN

    async def test_a_dearer_one_is_paid_its_price_for_all_that_is_held(self, street: Street) -> None:
        """What may be held at the market's dearest price grows with the bound."""
        await street.host(offer=at(TOKEN))
        _, channel = await street.host(offer=at(3 * TOKEN))
        job = await buy(street)
        await say(street, job, STEP)
        assert job.ceilings == (20 * 3 * TOKEN,)

        await lost(street, job)
        assert await held(street, job) == (20 * 3 * TOKEN,) * 3
        await street.core.background.drain_tasks()
        await say(street, job, 9)
        await end(street, job)

        assert job.cost_uusd == 10 * TOKEN + 9 * 3 * TOKEN
        assert channel.bounds == [(30, False)]

    async def test_after_a_dearer_one_its_part_is_held_at_its_price(self, street: Street) -> None:
        cheap, _ = await street.host(offer=at(TOKEN))
        street.core.fleet.reserve(cheap, "m")
        await street.host(offer=at(3 * TOKEN))
        job = await buy(street)
        await say(street, job, 4)
        street.core.fleet.release(cheap)

        await lost(street, job)
        await say(street, job, 6)

        assert lease_of(job).host_id == cheap
        assert await held(street, job) == (20 * 3 * TOKEN,) * 3
        await end(street, job)
        assert job.cost_uusd == 4 * 3 * TOKEN + 6 * TOKEN

    async def test_one_that_was_lost_at_the_bound_is_continued(self, street: Street) -> None:
        """A bounded answer would be complete there."""
        await street.host(offer=at(TOKEN))
        _, second = await street.host(offer=at(TOKEN))
        job = await buy(street)
        deliver(street.core, job, STEP)

        await lost(street, job)
        await street.core.background.drain_tasks()

        assert (job.state, job.terms.output_max) == (JobState.RUNNING, 2 * STEP)
        assert [sent for sent, _ in second.sent] == [job]
        await end(street, job)

    async def test_one_that_was_lost_where_credit_ended_is_complete(self, street: Street) -> None:
        await street.host(offer=at(SIGNUP_UUSD // 10))
        await street.host(offer=at(SIGNUP_UUSD // 10))
        job = await buy(street)
        await say(street, job, STEP)

        await lost(street, job)

        assert (job.state, job.finish_reason, job.cost_uusd) == (JobState.COMPLETED, "length", SIGNUP_UUSD)

    async def test_a_raise_that_is_due_when_it_begins_is_made_then(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The host before it was lost before that could be written."""
        await street.host(offer=at(TOKEN))
        _, second = await street.host(offer=at(TOKEN))
        job = await buy(street)
        monkeypatch.setattr("comptoir.dispatch.stream.extend_if_due", lambda core, job: None)
        await say(street, job, STEP)

        await lost(street, job)
        await street.core.background.drain_tasks()

        assert second.bounds == [(2 * STEP, False)]
        await end(street, job)

    async def test_a_second_host_that_was_faster_is_told(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, hedge=True) as street:
            channels = dict([await street.host(offer=at(TOKEN)) for _ in range(2)])
            job = await buy(street)
            begin(street.core, job, lease_of(job))
            hedge = job.hedge
            assert hedge is not None

            heard(street.core, hedge.host_id, Frames(hedge.id, 0, [Frame("a")]), lambda message: None)
            await street.core.background.drain_tasks()

            assert lease_of(job) is hedge
            assert channels[hedge.host_id].bounds == [(STEP, False)]
            await end(street, job)


class TestRaces:
    @pytest.mark.parametrize("covered", [True, False])
    async def test_an_end_waits_until_it_is_known_what_is_held(
        self, street: Street, monkeypatch: pytest.MonkeyPatch, covered: bool
    ) -> None:
        await street.host(offer=at(TOKEN if covered else SIGNUP_UUSD // 10))
        job = await buy(street)
        batch, ends = street.core.db.batch, []

        async def ended_meanwhile(verb: Any, item: Any, **named: Any) -> Any:
            if verb is extend_verb:
                ends.append(asyncio.ensure_future(end(street, job)))
                await asyncio.sleep(0)
            return await batch(verb, item, **named)

        monkeypatch.setattr(street.core.db, "batch", ended_meanwhile)
        await say(street, job, STEP)
        await asyncio.gather(*ends)

        assert len(ends) == 1
        assert job.state is JobState.COMPLETED
        assert (await receipt(street, job)).amounts.held_uusd == (2000 if covered else SIGNUP_UUSD)

    async def test_the_next_host_waits_for_it_too(self, street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
        await street.host(offer=at(TOKEN))
        await street.host(offer=at(2 * TOKEN))
        job = await buy(street)
        batch, order_of = street.core.db.batch, []

        async def noted(verb: Any, item: Any, **named: Any) -> Any:
            if verb is extend_verb:
                losing = asyncio.ensure_future(lost(street, job))
                await asyncio.sleep(0)
                written = await batch(verb, item, **named)
                for _ in range(20):  # Until the next host would have been given it.
                    await asyncio.sleep(0)
                order_of.append(verb)
                street.core.background.spawn(asyncio.wait_for(losing, 5))
                return written
            if verb is start_verb:
                order_of.append(verb)
            return await batch(verb, item, **named)

        monkeypatch.setattr(street.core.db, "batch", noted)
        await say(street, job, STEP)

        assert order_of[:2] == [extend_verb, start_verb]
        assert await held(street, job) == (20 * 2 * TOKEN,) * 3
        await end(street, job)

    async def test_a_job_that_ended_while_the_next_host_waited_is_not_leased(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await street.host(offer=at(TOKEN))
        other, _ = await street.host(offer=at(TOKEN))
        job = await buy(street)
        batch = street.core.db.batch

        async def all_at_once(verb: Any, item: Any, **named: Any) -> Any:
            if verb is extend_verb:
                for work in (lost(street, job), cancel(street.core, job)):
                    street.core.background.spawn(work)
                await asyncio.sleep(0.01)
            return await batch(verb, item, **named)

        monkeypatch.setattr(street.core.db, "batch", all_at_once)
        await say(street, job, STEP)

        assert job.state is JobState.CANCELLED
        assert street.core.fleet.get(other).slots.running == 0

    async def test_without_a_database_the_host_waits_and_nobody_blames_it(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, channel = await street.host(offer=at(TOKEN))
        await street.host(offer=at(TOKEN))
        job = await buy(street)
        batch = street.core.db.batch

        async def refused(verb: Any, item: Any, **named: Any) -> Any:
            if verb is extend_verb:
                raise Unavailable("the database is out of order")
            return await batch(verb, item, **named)

        monkeypatch.setattr(street.core.db, "batch", refused)
        await say(street, job, STEP)
        assert (job.terms.output_max, channel.bounds) == (STEP, [])
        street.clock.advance(seconds=street.core.settings.lease_s + 1)
        for host in street.core.fleet:
            street.core.fleet.seen(host.id)
        await sweep(street.core)
        lease = lease_of(job)
        assert lease.host_id in street.core.channels and street.core.channels[lease.host_id] is channel

        monkeypatch.setattr(street.core.db, "batch", batch)
        while len(street.core.state(DeferredSettlements)):
            await asyncio.sleep(0)
        await street.core.background.drain_tasks()

        assert (lease_of(job), channel.bounds) == (lease, [(2 * STEP, False)])
        assert lease.touched_s == street.core.clock.monotonic_s()
        await end(street, job)

    async def test_another_coordinators_job_is_not_raised_here(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await street.host(offer=at(TOKEN))
        job = await buy(street)
        moved: list[LiveJob] = []
        monkeypatch.setattr(street.core.peers, "moved", moved.append)
        whose = "UPDATE jobs SET node_id = ? WHERE id = ?"
        await street.core.db.run(lambda tx: tx.execute(whose, [b"n" * 16, job.id]))

        await say(street, job, 5)

        assert (moved, await held(street, job), job.quoting) == ([job], (1000,) * 3, None)
        await street.core.db.run(lambda tx: tx.execute(whose, [street.core.node_id, job.id]))
        await cancel(street.core, job)

    async def test_what_was_written_when_the_job_was_over_changes_nothing(self, street: Street) -> None:
        await street.host(offer=at(TOKEN))
        job = await buy(street)
        items = []
        batch = street.core.db.batch
        street.core.db.batch = lambda verb, item, **named: (items.append((verb, item)), batch(verb, item, **named))[1]  # type: ignore[method-assign, assignment]
        await say(street, job, STEP)
        ((verb, item),) = [each for each in items if each[0] is extend_verb]
        await end(street, job)

        with pytest.raises(JobFinished):
            await batch(verb, item)

        assert await street.free_uusd() == SIGNUP_UUSD - STEP * TOKEN


class TestRestart:
    async def test_what_is_held_stays_and_grows_on(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            host_id, _ = await street.host(offer=at(TOKEN))
            job = await buy(street)
            await say(street, job, 6)
            job_id, buyer = job.id, street.buyer_id
        async with open_street(tmp_path, buyer=buyer) as street:
            again = street.core.jobs.live.get(job_id)
            assert again is not None and again.grows
            assert await held(street, again) == (2000,) * 3
            channel = FakeChannel()
            street.link(host_id, channel)

            await say(street, again, 16)

            assert channel.bounds == [(30, False)]
            assert await held(street, again) == (3000,) * 3
            await end(street, again)
            assert again.cost_uusd == 16 * TOKEN
            assert await audit(street.core.db) == []

    async def test_a_host_that_waits_at_the_bound_is_not_forgotten(self, tmp_path: Path) -> None:
        """All its frames were shown here before, so it has nothing to send that would remind anybody."""
        async with open_street(tmp_path) as street:
            _, channel = await street.host(offer=at(TOKEN))
            job = await buy(street)
            assert job.growth is not None
            job.append([Frame(f"{n} ") for n in range(STEP)])

            extend_if_due(street.core, job)
            await street.core.background.drain_tasks()

            assert channel.bounds == [(2 * STEP, False)]
            await end(street, job)


def cost_so_far(street: Street, job: LiveJob) -> int:
    """Return what *job* would cost if nothing bounded it, for what was delivered."""
    parts = _parts(job, job.lease, Ending(JobState.CANCELLED))
    bill = shares(parts, input_count=0, output_max=job.terms.output_max, hold_uusd=1 << 60, fee_bps=0)
    return sum(share.cost_uusd for share in bill)


class TestAlwaysCovered:
    @pytest.mark.parametrize("seed", range(6))
    async def test_the_hold_covers_the_cost_and_credit_covers_the_hold(self, tmp_path: Path, seed: int) -> None:
        """Prices, sizes of frames, losses and other jobs at random: it must be true after every one of them."""
        chance = random.Random(seed)
        async with open_street(tmp_path) as street:
            for _ in range(4):
                await street.host(offer=at(chance.choice((0, 1, 7, 900, 4_000))), slots=2)
            jobs = [await buy(street, step=chance.choice((1, 3, 10, 40))) for _ in range(3)]
            for _ in range(60):
                running = [job for job in jobs if job.lease is not None]
                if not running:
                    break
                job = chance.choice(running)
                room = job.terms.output_max - job.claim
                if chance.random() < 0.1:
                    await lost(street, job)
                elif chance.random() < 0.05 or not job.grows:
                    await end(street, job)
                else:
                    deliver(street.core, job, min(room, chance.randint(1, 12)))
                if chance.random() < 0.7:
                    await street.core.background.drain_tasks()
                for each in jobs:
                    if not each.over:
                        assert cost_so_far(street, each) <= each.terms.hold_uusd, (seed, each.terms)
                assert await street.free_uusd() >= 0
            await street.core.background.drain_tasks()
            for job in jobs:
                if not job.over:
                    await cancel(street.core, job)
            assert await audit(street.core.db) == []
