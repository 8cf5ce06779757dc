"""Repair: an operator brings back what can be proved, sees how far that is, and what is left."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from comptoir.dispatch import repair
from comptoir.dispatch.bring_back import PostingOutcome
from comptoir.dispatch.errors import RestartFirst
from comptoir.dispatch.hand_in import HandedIn
from comptoir.dispatch.lost_commits import LostCommits
from comptoir.dispatch.repair import Repair, RepairState
from comptoir.kit.db import despite_loss
from comptoir.kit.errors import Unavailable
from comptoir.receipts import Receipt
from comptoir.reports import audit
from tests.rewind import rewind, snapshot
from tests.street import Street, finish_well, open_street


async def answered(street: Street) -> None:
    """Buy a job and have it answered."""
    await finish_well(street.core, await street.submit())


@asynccontextmanager
async def losing(
    folder: Path, database: str, *, jobs: int, deposit_uusd: int = 0, leave_uusd: int | None = None
) -> AsyncIterator[tuple[Street, list[Receipt]]]:
    """Give a coordinator that was started over a database without its last *jobs*, and their receipts, oldest first.

    Args:
        deposit_uusd: what was deposited just before them, and lost as well.
        leave_uusd: what the buyer has left where the database begins again.
    """
    async with open_street(folder, database=database) as street:
        await street.host()
        await answered(street)
        before = await snapshot(street.core.db, with_heads=True)
        if deposit_uusd:
            await street.core.ledger.deposit(owner_id=street.buyer_id, amount_uusd=deposit_uusd)
        for _ in range(jobs):
            await answered(street)
        receipts = list(reversed(await street.core.receipts.list(limit=500)))[1:]
        await rewind(street.core.db, before)
        if leave_uusd is not None:
            with despite_loss():
                await street.leave_credit(leave_uusd)
        buyer = street.buyer_id
    async with open_street(folder, database=database, buyer=buyer) as street:
        assert street.core.db.lost
        yield street, receipts


def hand_in(street: Street, receipts: Sequence[Receipt]) -> None:
    """Have workers hand in *receipts*."""
    for at, receipt in enumerate(receipts):
        street.core.state(HandedIn).add(receipt, at)


async def repaired(street: Street) -> RepairState:
    """Begin a repair and wait for its end."""
    made = street.core.state(Repair)
    made.begin()
    async with asyncio.timeout(20):
        while made.state.running:
            await asyncio.sleep(0.001)
    return made.state


class TestRepair:
    async def test_what_record_and_workers_prove_is_posted_and_the_loss_is_over(
        self, tmp_path: Path, database_address: str
    ) -> None:
        async with losing(tmp_path, database_address, jobs=3, deposit_uusd=777) as (street, receipts):
            hand_in(street, receipts)

            state = await repaired(street)

            assert (state.receipts, state.transfers, state.left, state.failed) == (3, 1, (), "")
            assert not street.core.db.lost
            assert len(street.core.state(HandedIn)) == 0
            assert list(reversed(await street.core.receipts.list(limit=500)))[1:] == receipts
            assert await audit(street.core.db) == []

    async def test_the_loss_goes_on_while_something_is_missing(self, tmp_path: Path) -> None:
        async with losing(tmp_path, "", jobs=3) as (street, receipts):
            hand_in(street, receipts[:2])
            state = await repaired(street)
            assert (state.receipts, street.core.db.lost) == (2, True)
            (left,) = (await street.core.state(LostCommits).missing()).receipts
            assert left.job_id == receipts[2].job_id

            hand_in(street, receipts)
            state = await repaired(street)

            assert (state.receipts, state.known, street.core.db.lost) == (1, 2, False)
            assert await audit(street.core.db) == []

    async def test_a_lost_deposit_is_posted_before_what_it_paid_for(self, tmp_path: Path) -> None:
        async with losing(tmp_path, "", jobs=1, deposit_uusd=501, leave_uusd=0) as (street, receipts):
            hand_in(street, receipts)

            state = await repaired(street)

            assert (state.transfers, state.receipts, state.left) == (1, 1, ())
            assert await street.free_uusd() == 0

    async def test_what_is_not_covered_is_named_and_can_be_brought_back_later(self, tmp_path: Path) -> None:
        async with losing(tmp_path, "", jobs=2, leave_uusd=600) as (street, receipts):
            hand_in(street, receipts)
            state = await repaired(street)
            (left,) = state.left
            assert (state.receipts, state.left_count, street.core.db.lost) == (1, 1, True)
            assert (left.outcome, left.job_id, left.missing_uusd) == (
                PostingOutcome.UNCOVERED, receipts[1].job_id, 402,
            )  # fmt: skip

            with despite_loss():
                await street.core.ledger.deposit(owner_id=street.buyer_id, amount_uusd=402)
            hand_in(street, receipts[1:])

            assert (await repaired(street)).receipts == 1
            assert not street.core.db.lost

    async def test_more_are_left_than_are_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(repair, "LEFT_NAMED_MAX", 1)
        async with losing(tmp_path, "", jobs=3, leave_uusd=0) as (street, receipts):
            hand_in(street, receipts)

            state = await repaired(street)

            assert (len(state.left), state.left_count) == (1, 3)

    async def test_while_nothing_is_missing_it_posts_nothing(self, street: Street) -> None:
        assert await repaired(street) == RepairState()

    async def test_after_the_loss_was_accepted_the_rest_can_still_be_brought_back(self, tmp_path: Path) -> None:
        """Nobody can be credited before; and what is not covered needs that."""
        async with losing(tmp_path, "", jobs=2, leave_uusd=600) as (street, receipts):
            hand_in(street, receipts)
            await repaired(street)
            await street.core.state(LostCommits).accept("one receipt is not covered")
            await street.core.ledger.deposit(owner_id=street.buyer_id, amount_uusd=402)
            hand_in(street, receipts[1:])

            assert (await repaired(street)).receipts == 1

            assert len(await street.core.receipts.list()) == 3
            await street.core.db.compare()
            assert not street.core.db.lost
            assert await audit(street.core.db) == []

    async def test_a_second_one_does_not_begin_while_one_runs(self, tmp_path: Path) -> None:
        async with losing(tmp_path, "", jobs=1) as (street, receipts):
            hand_in(street, receipts)
            street.core.state(Repair).begin()
            street.core.state(Repair).begin()

            assert (await repaired(street)).receipts == 1

    async def test_when_memory_is_newer_than_the_database_it_is_refused(self, street: Street) -> None:
        await street.host()
        before = await snapshot(street.core.db, with_heads=True)
        await answered(street)
        await rewind(street.core.db, before)
        await street.core.db.compare()

        with pytest.raises(RestartFirst):
            street.core.state(Repair).begin()

    async def test_an_outage_ends_it_with_the_reason(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async with losing(tmp_path, "", jobs=2) as (street, receipts):
            hand_in(street, receipts)
            with monkeypatch.context() as patch:
                patch.setattr(street.core.ledger, "posted", _out_of_reach)
                patch.setattr(street.core.receipts, "stored", _out_of_reach)
                state = await repaired(street)
            assert (state.running, state.failed) == (False, "out of reach")

            hand_in(street, receipts)
            assert (await repaired(street)).failed == ""
            assert not street.core.db.lost


async def _out_of_reach(ids: object) -> object:
    raise Unavailable("out of reach")
