"""Bring back: what a receipt proves is posted again once, and the books are what they were."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.bring_back import BroughtBack, PostingOutcome, bring_back
from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.settle import Ending, finish
from comptoir.dispatch.stream import fail
from comptoir.events import JobEnded
from comptoir.gateway.follow import find_job, follow
from comptoir.jobs import AnswerLost, Fault, JobState, LiveJob
from comptoir.kit.db import Database, Tx
from comptoir.kit.ids import public
from comptoir.receipts import Receipt, predicate_of
from comptoir.reports import audit
from tests.rewind import rewind, snapshot
from tests.street import GOES_ON, Street, deliver, finish_well, open_street

Books = dict[bytes, tuple[str, int, int]]


async def books(db: Database) -> Books:
    """Return kind, balance and held amount of each account, the coordinators' fees as one."""
    rows = await db.fetch("SELECT id, kind, balance_uusd, held_uusd FROM accounts")
    return {bytes(row[0]): (row[1], int(row[2]), int(row[3])) for row in rows}


async def transfers(db: Database) -> set[tuple[Any, ...]]:
    """Return all transfers."""
    rows = await db.fetch("SELECT id, debit_id, credit_id, amount_uusd, kind, job_id, promo_uusd FROM transfers")
    return {tuple(bytes(one) if isinstance(one, bytes | memoryview) else one for one in row) for row in rows}


async def oldest_first(street: Street) -> list[Receipt]:
    """Return all receipts."""
    return list(reversed(await street.core.receipts.list(limit=500)))


def outcomes(found: Sequence[BroughtBack]) -> list[PostingOutcome]:
    return [one.outcome for one in found]


async def answered(street: Street) -> LiveJob:
    """Buy a job and have it answered."""
    job = await street.submit()
    await finish_well(street.core, job)
    return job


async def shrink_hold(db: Database, job_id: bytes, *, by_uusd: int) -> None:
    """Take an open hold back to before it grew."""

    def command(tx: Tx) -> None:
        ((owner_id,),) = tx.fetch("SELECT owner_id FROM jobs WHERE id = ?", [job_id])
        tx.execute("UPDATE holds SET amount_uusd = amount_uusd - ? WHERE job_id = ?", [by_uusd, job_id])
        tx.execute("UPDATE jobs SET hold_uusd = hold_uusd - ? WHERE id = ?", [by_uusd, job_id])
        tx.execute("UPDATE accounts SET held_uusd = held_uusd - ? WHERE id = ?", [by_uusd, owner_id])

    await db.run(command)


class TestBringBack:
    async def test_a_job_that_is_gone_is_there_again_and_the_books_are_what_they_were(
        self, either_street: Street
    ) -> None:
        street = either_street
        await street.host()
        await answered(street)
        before = await snapshot(street.core.db)
        job = await answered(street)
        was, moved, receipts = await books(street.core.db), await transfers(street.core.db), await oldest_first(street)
        await rewind(street.core.db, before)
        assert await books(street.core.db) != was

        found = await bring_back(street.core, receipts)

        assert outcomes(found) == [PostingOutcome.KNOWN, PostingOutcome.POSTED]
        assert await books(street.core.db) == was
        assert await transfers(street.core.db) == moved
        assert await oldest_first(street) == receipts
        assert await audit(street.core.db) == []
        row = await street.core.jobs.get(job.id)
        assert (row.state, row.cost_uusd, row.completion_tokens) == (JobState.COMPLETED, 501, 5)

    async def test_a_job_that_is_open_again_is_ended_and_its_hold_closed(self, either_street: Street) -> None:
        street = either_street
        await street.host()
        job = await street.submit()
        before = await snapshot(street.core.db)
        await finish_well(street.core, job)
        was, moved, receipts = await books(street.core.db), await transfers(street.core.db), await oldest_first(street)
        await rewind(street.core.db, before)

        found = await bring_back(street.core, receipts)

        assert outcomes(found) == [PostingOutcome.POSTED]
        assert await books(street.core.db) == was
        assert await transfers(street.core.db) == moved
        assert await audit(street.core.db) == []

    async def test_a_job_that_waits_again_is_ended_too(self, either_street: Street) -> None:
        """Its lease was lost as well: the attempt is written from the receipt."""
        street = either_street
        await street.host()
        first, job = await street.submit(), await street.submit()
        before = await snapshot(street.core.db)
        await finish_well(street.core, first)
        await street.core.background.drain_tasks()
        await finish_well(street.core, job, tokens=3)
        was, receipts = await books(street.core.db), await oldest_first(street)
        await rewind(street.core.db, before)

        assert outcomes(await bring_back(street.core, receipts)) == [PostingOutcome.POSTED] * 2
        assert await books(street.core.db) == was
        assert await audit(street.core.db) == []

    async def test_an_answer_by_two_hosts_pays_both_again(self, either_street: Street) -> None:
        street = either_street
        await street.host(offer=GOES_ON)
        await street.host(offer=GOES_ON)
        before = await snapshot(street.core.db)
        job = await street.submit()
        deliver(street.core, job, 2)
        assert job.lease is not None
        await revoke_lease(street.core, job, job.lease, "gone", fault=Fault.HOST)
        await street.core.background.drain_tasks()
        await finish_well(street.core, job, tokens=3)
        was, receipts = await books(street.core.db), await oldest_first(street)
        assert sum(kind == "host" and balance > 0 for kind, balance, _ in was.values()) == 2
        await rewind(street.core.db, before)

        assert outcomes(await bring_back(street.core, receipts)) == [PostingOutcome.POSTED]
        assert await books(street.core.db) == was
        assert await audit(street.core.db) == []

    async def test_a_job_that_failed_after_a_lease_that_is_open_again(self, either_street: Street) -> None:
        """Its receipt names no host, and the lease that the database has again must not stay open."""
        street = either_street
        await street.host()
        job = await street.submit()
        before = await snapshot(street.core.db)
        await fail(street.core, job, code="bad", message="bad", fault=Fault.BUYER)
        assert job.over
        was, receipts = await books(street.core.db), await oldest_first(street)
        await rewind(street.core.db, before)

        assert outcomes(await bring_back(street.core, receipts)) == [PostingOutcome.POSTED]
        assert await books(street.core.db) == was
        assert await audit(street.core.db) == []

    async def test_a_hold_that_grew_is_closed_at_what_the_receipt_says(self, either_street: Street) -> None:
        street = either_street
        await street.host()
        job = await street.submit()
        before = await snapshot(street.core.db)
        await finish_well(street.core, job)
        (receipt,) = await oldest_first(street)
        held = predicate_of(receipt.payload).amounts.held_uusd
        await rewind(street.core.db, before)
        await shrink_hold(street.core.db, job.id, by_uusd=7)

        assert outcomes(await bring_back(street.core, [receipt])) == [PostingOutcome.POSTED]
        assert (await street.core.jobs.get(job.id)).terms.hold_uusd == held
        assert await audit(street.core.db) == []

    async def test_twice_is_once_and_side_by_side_as_well(self, either_street: Street) -> None:
        """Two operators, or one whose first command got no answer."""
        street = either_street
        await street.host()
        before = await snapshot(street.core.db)
        for _ in range(3):
            await answered(street)
        was, receipts = await books(street.core.db), await oldest_first(street)
        await rewind(street.core.db, before)

        both = await asyncio.gather(bring_back(street.core, receipts), bring_back(street.core, receipts))
        again = await bring_back(street.core, receipts)

        assert sorted(outcomes([*both[0], *both[1]])) == [PostingOutcome.KNOWN] * 3 + [PostingOutcome.POSTED] * 3
        assert outcomes(again) == [PostingOutcome.KNOWN] * 3
        assert await books(street.core.db) == was
        assert await audit(street.core.db) == []

    async def test_what_its_buyer_no_longer_covers_is_listed_and_nothing_of_it_is_posted(
        self, either_street: Street
    ) -> None:
        """The deposit that paid for it was lost as well, or the credit was spent again since."""
        street = either_street
        await street.host()
        before = await snapshot(street.core.db)
        first, second = await answered(street), await answered(street)
        receipts = await oldest_first(street)
        await rewind(street.core.db, before)
        await street.leave_credit(701)

        found = await bring_back(street.core, receipts)

        assert outcomes(found) == [PostingOutcome.POSTED, PostingOutcome.UNCOVERED]
        assert (found[1].job_id, found[1].missing_uusd) == (second.id, 301)
        assert await audit(street.core.db) == []
        assert [receipt.job_id for receipt in await oldest_first(street)] == [first.id]

        await street.core.ledger.deposit(owner_id=street.buyer_id, amount_uusd=301)
        assert outcomes(await bring_back(street.core, receipts)) == [PostingOutcome.KNOWN, PostingOutcome.POSTED]
        assert await audit(street.core.db) == []

    @pytest.mark.parametrize("lost", ["host", "buyer"])
    async def test_who_has_no_account_any_more_is_named(self, either_street: Street, lost: str) -> None:
        street = either_street
        before = await snapshot(street.core.db)
        await street.host()
        job = await answered(street)
        receipts = await oldest_first(street)
        await rewind(street.core.db, before)
        if lost == "buyer":
            await street.core.db.run(lambda tx: tx.execute("DELETE FROM accounts WHERE id = ?", [street.buyer_id]))
        was = await books(street.core.db)

        (found,) = await bring_back(street.core, receipts)

        assert (found.outcome, found.job_id) == (PostingOutcome.NO_ACCOUNT, job.id)
        assert await books(street.core.db) == was

    async def test_books_that_say_otherwise_are_left_alone(self, either_street: Street) -> None:
        """The rewound job was ended in another way before anybody noticed that commits were missing."""
        street = either_street
        await street.host()
        first, job = await street.submit(), await street.submit()
        before = await snapshot(street.core.db)
        await finish_well(street.core, first)
        await street.core.background.drain_tasks()
        await finish_well(street.core, job)
        paid = await street.core.receipts.get(job.id)
        await rewind(street.core.db, before)
        row = await street.core.jobs.get(job.id, light=False)
        again = street.core.jobs.revived(row, now_s=0.0)
        street.core.jobs.live.add(again)
        street.core.state(Buyers).enter(again)
        await finish(street.core, again, Ending(JobState.FAILED, fault=Fault.COORDINATOR, code="x", free=True))
        was = await books(street.core.db)

        (found,) = await bring_back(street.core, [paid])

        assert (found.outcome, found.why) == (PostingOutcome.CONTRADICTED, "the books have another receipt of this job")
        assert await books(street.core.db) == was

    async def test_transfers_without_their_receipt_are_left_alone(self, either_street: Street) -> None:
        """It is paid, and somebody has taken the receipt: posting it again would pay twice, or break half-way."""
        street = either_street
        await street.host()
        job = await street.submit()
        await finish_well(street.core, job)
        paid = await street.core.receipts.get(job.id)
        await street.core.db.run(lambda tx: tx.execute("DELETE FROM receipts WHERE job_id = ?", [job.id]))
        was = await books(street.core.db)

        (found,) = await bring_back(street.core, [paid])

        assert found.outcome is PostingOutcome.CONTRADICTED
        assert found.why == "the books have some of its transfers, and no receipt"
        assert await books(street.core.db) == was

    async def test_a_job_under_way_here_is_not_touched(self, street: Street) -> None:
        """What is in memory would end it a second time."""
        await street.host()
        done, job = await answered(street), await street.submit()
        (receipt,) = await oldest_first(street)
        forged = msgspec.structs.replace(receipt, job_id=job.id)
        was = await books(street.core.db)

        (found,) = await bring_back(street.core, [forged])

        assert (found.outcome, found.job_id) == (PostingOutcome.UNDER_WAY, job.id)
        assert await books(street.core.db) == was
        assert done.over and not job.over

    async def test_its_reader_is_told_that_the_answer_is_lost(self, street: Street) -> None:
        await street.host()
        before = await snapshot(street.core.db)
        job = await answered(street)
        receipts = await oldest_first(street)
        await rewind(street.core.db, before)
        await bring_back(street.core, receipts)
        street.core.jobs.live.forget_recent(older_than_ms=street.clock.now_ms() + 1)

        found = await find_job(street.core, street.buyer_id, public("job", job.id))
        with pytest.raises(AnswerLost, match="lost this job's last commits"):
            await follow(street.core, found)

    async def test_its_buyer_may_spend_what_is_left_and_hears_of_the_end(self, street: Street) -> None:
        await street.host()
        before = await snapshot(street.core.db)
        await answered(street)
        receipts = await oldest_first(street)
        left = await street.free_uusd()
        await rewind(street.core.db, before)
        await bring_back(street.core, receipts)

        assert await street.free_uusd() == left
        *_, event = await street.core.events.after(street.buyer_id, 0)
        assert isinstance(event, JobEnded) and event.job_id == receipts[0].job_id


class TestAnyOrder:
    @settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(calls=st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=5))
    def test_repeated_and_reordered_in_any_way_each_is_posted_once(
        self, tmp_path_factory: pytest.TempPathFactory, calls: list[list[int]]
    ) -> None:
        """Two workers of one job hand in the same receipt; a crash between two calls is a call without an answer."""

        async def play() -> None:
            async with open_street(tmp_path_factory.mktemp("street")) as street:
                await street.host()
                before = await snapshot(street.core.db)
                for _ in range(6):
                    await answered(street)
                was, receipts = await books(street.core.db), await oldest_first(street)
                await rewind(street.core.db, before)
                for call in calls:
                    await bring_back(street.core, [receipts[at] for at in call])
                    assert await audit(street.core.db) == []
                await bring_back(street.core, receipts)
                assert await books(street.core.db) == was
                assert await audit(street.core.db) == []

        asyncio.run(play())
