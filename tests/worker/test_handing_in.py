"""A worker keeps what its coordinator signed, tells what it has, and hands in what it is asked for."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from comptoir.kit.ids import public
from comptoir.link import HANDED_MAX, LISTED_MAX, AskReceipts, ConfirmedHead, HandIn, Settled, SignedReceipt
from comptoir.worker.receipt_store import ReceiptStore
from tests.worker.conftest import JoinWorker
from tests.worker.coordinator_stand_in import Coordinator, make_job
from tests.worker.scripted_engine import ScriptedEngine

KEEPER = b"K" * 16


def settled(number: int, *, receipt: bool = True) -> Settled:
    """Return the end of a lease that this worker does not hold any more, with its receipt."""
    job_id = number.to_bytes(16, "big")
    kept = SignedReceipt("k" * 64, str(number).encode(), b"s" * 64) if receipt else None
    return Settled(b"L", public("job", job_id), "done", 5, 1, 50, 0, kept)


@pytest.fixture
def store(tmp_path: Path) -> ReceiptStore:
    opened = ReceiptStore(tmp_path / "receipts")
    opened.open()
    return opened


async def handed(coordinator: Coordinator, question: AskReceipts) -> HandIn:
    """Ask the worker and return its answer."""
    await coordinator.send(question)
    async with asyncio.timeout(10):
        return await coordinator.handed.get()


class TestHandingIn:
    async def test_it_lists_the_newest_first_and_hands_in_what_is_wanted(
        self, coordinator: Coordinator, join: JoinWorker, store: ReceiptStore
    ) -> None:
        async with join(ScriptedEngine(), receipts=store):
            await coordinator.send(settled(1), settled(2), settled(3, receipt=False), settled(4))
            listed = await handed(coordinator, AskReceipts())
            one = await handed(coordinator, AskReceipts(wanted=[listed.listed[-1].job_id, b"unknown"]))

        assert [int.from_bytes(one.job_id, "big") for one in listed.listed] == [4, 2, 1]
        assert [one.sha256 for one in listed.listed] == [hashlib.sha256(said).digest() for said in (b"4", b"2", b"1")]
        assert (listed.more, listed.receipts, one.listed) == (False, [], [])
        assert [receipt.payload for receipt in one.receipts] == [b"1"]

    async def test_many_come_in_pages(self, coordinator: Coordinator, join: JoinWorker, store: ReceiptStore) -> None:
        count = LISTED_MAX + 10
        for number in range(count):
            store.add(number.to_bytes(16, "big"), SignedReceipt("k", b"", b""))
        async with join(ScriptedEngine(), receipts=store):
            first = await handed(coordinator, AskReceipts())
            second = await handed(coordinator, AskReceipts(after=len(first.listed)))
            none = await handed(coordinator, AskReceipts(after=2 * count))
            some = await handed(coordinator, AskReceipts(wanted=[one.job_id for one in first.listed]))

        assert (len(first.listed), first.more) == (LISTED_MAX, True)
        assert (len(second.listed), second.more) == (10, False)
        assert len({one.job_id for one in (*first.listed, *second.listed)}) == count
        assert (none.listed, none.more) == ([], False)
        assert len(some.receipts) == HANDED_MAX

    async def test_what_came_since_it_listed_them_is_listed_on_the_next_connection(
        self, coordinator: Coordinator, join: JoinWorker, store: ReceiptStore
    ) -> None:
        """On one connection pages must not shift."""
        async with join(ScriptedEngine(), receipts=store):
            await coordinator.send(settled(1))
            first = await handed(coordinator, AskReceipts())
            await coordinator.send(settled(2))
            second = await handed(coordinator, AskReceipts())
        async with join(ScriptedEngine(), receipts=store):
            third = await handed(coordinator, AskReceipts())

        assert len(first.listed) == len(second.listed) == 1
        assert len(third.listed) == 2

    async def test_the_newest_head_of_each_coordinator_is_brought(
        self, coordinator: Coordinator, join: JoinWorker, store: ReceiptStore
    ) -> None:
        async with join(ScriptedEngine(), receipts=store):
            await coordinator.send(ConfirmedHead(KEEPER, b"old"), ConfirmedHead(KEEPER, b"new"), settled(1))
            await handed(coordinator, AskReceipts())
        async with join(ScriptedEngine(), receipts=store):
            pass

        before, after = coordinator.hellos
        assert (before.heads, before.keeps_receipts) == ([], True)
        assert (after.heads, after.keeps_receipts) == ([b"new"], True)

    async def test_one_that_keeps_none_says_so_and_is_not_hurt_by_a_receipt(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        async with join(ScriptedEngine()) as half:
            await coordinator.send(settled(1))
            attempt = await coordinator.push(make_job(1))
            await asyncio.wait_for(attempt.closed.wait(), 10)

            assert half.uplink.connected
        assert not coordinator.hellos[0].keeps_receipts
