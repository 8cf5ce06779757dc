"""A host elsewhere that takes no promotional credit: whether own money covers a job goes with its offer."""

from pathlib import Path

import pytest

from comptoir.dispatch.errors import NoHostPossible
from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import JobState
from tests.cluster.posts import open_posts
from tests.redis_server import RedisServer
from tests.street import until_over


async def test_own_money_runs_there_and_promotional_credit_does_not(
    tmp_path: Path, postgres_address: str, redis_server: RedisServer
) -> None:
    async with open_posts(tmp_path, database=postgres_address, bus=redis_server.url) as posts:
        here, there = posts[0], posts[1]
        async with there.worker(promotions=False):
            await posts.until_seen(here)
            asked = Order(here.buyer_id, "test", "chat", "trivial", b'{"messages":[]}', 3, True)
            with pytest.raises(NoHostPossible, match="takes no promotional credit"):
                await submit(here.core, asked)
            await here.core.ledger.deposit(owner_id=here.buyer_id, amount_uusd=100_000)

            job = await submit(here.core, asked)
            await until_over(job)

            (host,) = there.core.fleet
            earned = await here.core.ledger.account(host.id)
            assert (job.state, job.host_id) == (JobState.COMPLETED, host.id)
            assert earned.payable_uusd == earned.balance_uusd > 0
