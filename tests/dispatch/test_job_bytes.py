"""Unfinished jobs are bounded by their bytes, of one buyer and of all, whatever they cost; and every way out gives room
back."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from comptoir.dispatch.buyers import SMALL_BYTES, Buyers
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.errors import QueueBytesFull, TooManyJobBytes
from comptoir.dispatch.onboard import add_user
from comptoir.dispatch.submit import Order, submit
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
