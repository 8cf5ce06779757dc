"""Settle: a job ends once; what was delivered is paid, at most what was held, and the rest goes back."""

import asyncio
from typing import Any

import pytest

from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.core import CommandOrder
from comptoir.dispatch.deferred_settlements import DeferredSettlements
from comptoir.dispatch.settle import Ending, _item, finish, settle_verb
from comptoir.dispatch.stream import complete
from comptoir.jobs import JobState, NotYourLease
from comptoir.kit.errors import Unavailable
from comptoir.ledger import FEES, HoldMismatch
from comptoir.link import Usage
from comptoir.receipts import read_registry, verify
from comptoir.reports import audit
from tests.dispatch.continuing import lost
from tests.street import GOES_ON, SIGNUP_UUSD, Street, deliver, finish_well

DONE = Ending(JobState.COMPLETED, finish_reason="stop")


class TestFinish:
    async def test_host_and_house_are_paid_and_the_rest_goes_back(self, street: Street) -> None:
        host_id, line = await street.host()
        job = await street.submit(max_tokens=10)

        await finish_well(street.core, job, tokens=5)

        # Five tokens at 100 and one of the prompt at 1; 12 % of it, half-even, is the house's.
        assert job.cost_uusd == 501
        accounts = await street.core.ledger.accounts([street.buyer_id, host_id, FEES])
        assert [accounts[key].balance_uusd for key in (street.buyer_id, host_id, FEES)] == [SIGNUP_UUSD - 501, 441, 60]
        assert await street.free_uusd() == SIGNUP_UUSD - 501
        assert line.closed == [(line.sent[0][1].id, "done", 441)]

    async def test_the_end_is_stored_whole(self, street: Street) -> None:
        await street.host()
        job = await street.submit()

        await finish_well(street.core, job, tokens=3)

        row = await street.core.jobs.get(job.id)
        assert (row.state, row.completion_tokens, row.cost_uusd, row.finish_reason) == ("completed", 3, 301, "stop")
        frames, _ = await street.core.jobs.answer(job.id)
        assert "".join(frame.text for frame in frames) == "0 1 2 "
        core = street.core
        verdict = verify(await core.receipts.envelope_of(job.id), read_registry(await core.receipts.registry()))
        assert verdict.ok, verdict
        assert await audit(core.db) == []

    async def test_tokens_past_the_limit_are_forgiven_and_never_billed(self, street: Street) -> None:
        await street.host()
        job = await street.submit(max_tokens=10)

        await finish_well(street.core, job, tokens=12)

        assert job.cost_uusd == 10 * 100 + 1 <= job.terms.hold_uusd

    async def test_a_prompt_is_billed_as_far_as_the_hold_covers_it(self, street: Street) -> None:
        """What a host counts of it may be more; the rest of the hold is for the answer."""
        await street.host()
        job = await street.submit(max_tokens=10)
        deliver(street.core, job, 1)

        await complete(street.core, job, finish_reason="stop", usage=Usage(1_000, 1))

        assert job.cost_uusd == job.terms.input_max + 100 < job.terms.hold_uusd

    async def test_a_job_without_a_token_costs_nothing(self, street: Street) -> None:
        await street.host()
        job = await street.submit()

        await finish(street.core, job, Ending(JobState.FAILED, code="broken"))

        assert (job.cost_uusd, await street.free_uusd()) == (0, SIGNUP_UUSD)
        assert await audit(street.core.db) == []

    async def test_ending_it_twice_at_once_ends_it_once(self, street: Street) -> None:
        _, line = await street.host()
        job = await street.submit()
        deliver(street.core, job, 2)

        await asyncio.gather(finish(street.core, job, DONE), cancel(street.core, job), finish(street.core, job, DONE))

        assert job.state == JobState.COMPLETED
        assert len(line.closed) == 1
        assert street.core.state(Buyers).in_flight.counts() == {}
        assert [host.slots.free for host in street.core.fleet] == [1]
        assert await audit(street.core.db) == []

    async def test_one_that_is_refused_stops_no_other(self, street: Street) -> None:
        await street.host(slots=10)
        jobs = [await street.submit() for _ in range(10)]
        broken = jobs[3]
        await street.core.db.run(lambda tx: tx.execute("DELETE FROM holds WHERE job_id = ?", (broken.id,)))

        done = await asyncio.gather(*(finish_well(street.core, job) for job in jobs), return_exceptions=True)

        assert [n for n, one in enumerate(done) if one is not None] == [3]
        assert isinstance(done[3], HoldMismatch)
        assert [job.over for job in jobs] == [job is not broken for job in jobs]
        assert "settle_verb" in street.core.db.stats.by_verb

    async def test_an_end_that_could_not_be_written_is_written_later(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await street.host()
        job = await street.submit()
        deliver(street.core, job, 2)

        async def away(*args: Any, **named: Any) -> None:
            raise Unavailable("the database is out of reach")

        with monkeypatch.context() as patched:
            patched.setattr(street.core.db, "batch", away)
            with pytest.raises(Unavailable):
                await finish(street.core, job, DONE)
            await cancel(street.core, job)  # It is ending already.
        async with asyncio.timeout(20):
            await job.ended()

        assert job.state == JobState.COMPLETED
        assert len(street.core.state(DeferredSettlements)) == 0
        assert await audit(street.core.db) == []


class TestSettleVerb:
    async def test_a_lease_that_was_closed_ends_nothing(self, street: Street) -> None:
        """An end that was decided on before the job went to another host comes too late, and is refused as a whole."""
        for _ in range(2):
            await street.host(offer=GOES_ON)
        job = await street.submit()
        late = _item(street.core, job, job.lease, Ending(JobState.FAILED))
        await lost(street, job)

        with pytest.raises(NotYourLease):
            await street.core.db.batch(settle_verb, late, turn=CommandOrder.SETTLE)

        assert (await street.core.jobs.get(job.id)).state == JobState.RUNNING
        await finish_well(street.core, job)
        assert await audit(street.core.db) == []
