"""Unfinished jobs are bounded by their bytes, of one buyer and of all, whatever they cost; and every way out gives room
back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from comptoir.dispatch.buyers import SMALL_BYTES, Buyers
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.errors import QueueBytesFull, TooManyJobBytes
from comptoir.dispatch.expire import sweep_forever
from comptoir.dispatch.onboard import add_user
from comptoir.dispatch.submit import Order, submit
from comptoir.dispatch.unpaid import drop_unpaid
from comptoir.jobs import LiveJob
from comptoir.ledger import InsufficientCredit
from tests.street import Street, finish_well, open_street, order

KIB = 1 << 10


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Street]:
    """A post with one host of one slot, whose jobs may have 30 KiB of one buyer, 50 KiB in all."""
    bounds = {
        "unfinished_bytes_per_buyer_max": 30 * KIB,
        "unfinished_bytes_max": 50 * KIB,
        "prompt_bytes_max": 20 * KIB,
    }
    async with open_street(tmp_path, **bounds) as opened:
        await opened.host()
        yield opened
        assert opened.core.state(Buyers).unfinished_bytes == sum(
            len(job.body) for job in opened.core.jobs.live.all() if len(job.body) > SMALL_BYTES
        )


def large(owner_id: bytes, *, size: int = 10 * KIB, max_tokens: int = 1) -> Order:
    made = order(owner_id, max_tokens=max_tokens)
    body = b'{"messages":[{"role":"user","content":"%b"}]}'
    return msgspec.structs.replace(made, body=body % (b"x" * (size - len(body) + 2)))


class TestUnpaid:
    """A job that cost nothing leaves its prompt and answer on the disk, which nobody paid for."""

    async def test_the_oldest_are_deleted_beyond_the_bound(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, unpaid_bytes_per_buyer_max=35 * KIB) as street:
            other = await add_user(street.core, username="bob", email=None, password=None, credit_uusd=10**9)
            await street.host()
            cancelled = [await _cancelled(street, street.buyer_id) for _ in range(5)]
            small = await street.submit()
            await cancel(street.core, small)
            others = [await _cancelled(street, other.user.id) for _ in range(3)]
            paid = await submit(street.core, large(street.buyer_id, max_tokens=4))
            await finish_well(street.core, paid)

            assert await drop_unpaid(street.core) == 2

            forgotten = [await street.core.jobs.is_forgotten(job.id) for job in (*cancelled, small, *others, paid)]
            assert forgotten == [True, True] + [False] * 8
            assert await drop_unpaid(street.core) == 0

    async def test_the_sweep_does_it_and_the_newest_stays_whatever_its_size(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, unpaid_bytes_per_buyer_max=1 * KIB) as street:
            await street.host()
            jobs = [await _cancelled(street, street.buyer_id) for _ in range(3)]
            sweeping = asyncio.ensure_future(sweep_forever(street.core))
            try:
                async with asyncio.timeout(20):
                    while not await street.core.jobs.is_forgotten(jobs[1].id):
                        await asyncio.sleep(0.05)
            finally:
                sweeping.cancel()

            assert not await street.core.jobs.is_forgotten(jobs[2].id)


async def _cancelled(street: Street, owner_id: bytes) -> LiveJob:
    job = await submit(street.core, large(owner_id))
    await cancel(street.core, job)
    return job


class TestBytes:
    async def test_one_buyer_has_only_so_many_and_another_is_not_in_his_way(self, small: Street) -> None:
        """Row 12: 40 jobs of 15 MB without a price were 574 MB of memory."""
        other = await add_user(small.core, username="bob", email=None, password=None, credit_uusd=10**9)
        first, _, _ = [await submit(small.core, large(small.buyer_id)) for _ in range(3)]

        with pytest.raises(TooManyJobBytes):
            await submit(small.core, large(small.buyer_id))
        await small.submit()
        await submit(small.core, large(other.user.id))
        await finish_well(small.core, first)

        await submit(small.core, large(small.buyer_id))

    async def test_all_together_have_only_so_many(self, small: Street) -> None:
        others = [
            (await add_user(small.core, username=name, email=None, password=None, credit_uusd=10**9)).user.id
            for name in ("bob", "eve")
        ]
        jobs = [await submit(small.core, large(owner, size=20 * KIB)) for owner in (small.buyer_id, others[0])]

        with pytest.raises(QueueBytesFull):
            await submit(small.core, large(others[1], size=20 * KIB))
        await cancel(small.core, jobs[1])

        await submit(small.core, large(others[1], size=20 * KIB))

    async def test_one_that_is_refused_holds_none(self, small: Street) -> None:
        poor = await add_user(small.core, username="bob", email=None, password=None, credit_uusd=1)

        with pytest.raises(InsufficientCredit):
            await submit(small.core, large(poor.user.id, max_tokens=1_000))

        assert small.core.state(Buyers).unfinished_bytes == 0
