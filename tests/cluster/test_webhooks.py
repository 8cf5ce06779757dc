"""Webhooks of several coordinators: whoever an event happens at, it is sent once, and in order."""

import asyncio
from pathlib import Path

import pytest

from comptoir.dispatch.submit import submit
from comptoir.dispatch.webhooks import Outgoing, add_webhook, pause_webhook
from comptoir.events import JobAccepted, JobAssigned, JobEnded
from comptoir.outbox import IntentState
from tests.cluster.posts import open_posts
from tests.cluster.test_any_coordinator import order, read
from tests.redis_server import RedisServer
from tests.webhook_receiver import receiving


async def test_events_of_both_are_sent_once_and_in_order(
    tmp_path: Path, postgres_address: str, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first knows of the webhook when it is made; the second finds it in the table."""
    monkeypatch.setattr("comptoir.dispatch.outbox.LOOK_S", 0.02)
    options = {"database": postgres_address, "bus": redis_server.url, "allow_private_endpoint_urls": True}
    async with open_posts(tmp_path, **options) as posts, receiving() as receiver:
        owner_id = posts[0].buyer_id
        made = await add_webhook(posts[0].core, owner_id=owner_id, url=receiver.url)
        first = made.webhook.cursor + 1
        for _ in range(10):
            await asyncio.gather(
                *(core.ledger.deposit(owner_id=owner_id, amount_uusd=1) for core in posts.cores),
            )
        got = await receiver.until(20)
        out = posts[1].core.state(Outgoing)
        async with asyncio.timeout(20):
            while len(await out.outbox.page(made.webhook.id, state=IntentState.DONE)) < 20:
                await asyncio.sleep(0.01)

        assert [one.number for one in got] == list(range(first, first + 20))
        assert len(receiver.got) == 20


async def test_what_is_asked_for_at_one_is_told_at_the_other(
    tmp_path: Path, postgres_address: str, redis_server: RedisServer
) -> None:
    """At once, whoever accepts the job and whoever's host gets it: the account says so, and the offer of the job."""
    async with open_posts(tmp_path, database=postgres_address, bus=redis_server.url) as posts:
        owner_id = posts[0].buyer_id
        made = await add_webhook(posts[0].core, owner_id=owner_id, url="https://shop.example/")
        await pause_webhook(posts[0].core, made.webhook.id, owner_id=owner_id)
        async with posts[0].worker(options={"tokens": 3}):
            await posts.until_seen(posts[1])
            job = await submit(posts[1].core, order(posts[1], tokens=3))
            await read(job)
        told = await posts[0].core.events.after(owner_id, made.webhook.cursor)
        attempts = await posts[0].core.jobs.attempts(job.id)

    jobs = [event for event in told if isinstance(event, JobAccepted | JobAssigned | JobEnded)]
    assert [type(event) for event in jobs] == [JobAccepted, JobAssigned, JobEnded]
    assert {event.job_id for event in jobs} == {job.id}
    assert [event.lease_id for event in jobs if isinstance(event, JobAssigned)] == [each.id for each in attempts]
