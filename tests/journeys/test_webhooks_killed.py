"""kill -9 at every step from what happens to the note that its message was delivered: nothing is lost, and what comes
twice comes with the same id."""

import signal
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from aiohttp import web

from comptoir.app import open_core
from comptoir.dispatch.onboard import add_user
from comptoir.dispatch.webhooks import Outgoing, add_webhook, pause_webhook
from comptoir.events import HostChanged, JobAccepted, JobAssigned
from comptoir.outbox import IntentState
from comptoir.reports import audit
from comptoir.settings import Settings
from tests.journeys import dying_writer, webhook_sender
from tests.journeys.forked import Forked
from tests.post import QUICK
from tests.street import open_street
from tests.webhook_receiver import Got, accept, receiving

ARRIVES = {
    "told": 1,
    "put": 1,
    "put committed": 1,
    "sent": 2,
    "answered": 2,
    "report": 2,
    "report committed": 1,
}
"""How often a message arrives whose coordinator died there: twice only where nobody can know whether it did."""


async def test_every_event_arrives_wherever_its_coordinator_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tuple(ARRIVES) == webhook_sender.STEPS
    monkeypatch.setattr("comptoir.dispatch.outbox.LOOK_S", 0.01)
    data = str(tmp_path / "data")
    settings = Settings(data=data, port=0, allow_private_endpoint_urls=True, **QUICK)
    async with receiving() as receiver:
        async with open_core(settings) as core:
            owner_id = (await add_user(core, username="ada", email=None, password=None)).user.id
            webhook = (await add_webhook(core, owner_id=owner_id, url=receiver.url)).webhook
        for step in (*ARRIVES, ""):
            process = Forked(webhook_sender.main, data, owner_id.hex(), step, log=tmp_path / "log")

            async def kill(got: Got, dying: Forked = process) -> web.Response:
                dying.kill()
                await dying.wait()
                return web.Response(status=204)

            # What the one before left comes first.
            receiver.answers = [accept, kill] if step == "sent" else []
            assert await process.wait() == (-signal.SIGKILL if step else 0), (tmp_path / "log").read_text()

        async with open_core(settings) as core:
            messages = await core.state(Outgoing).outbox.page(webhook.id)
            numbers = [event.number for event in await core.events.after(owner_id, webhook.cursor)]

    arrived = Counter(one.number for one in receiver.got)
    assert dict(zip(ARRIVES, (arrived[number] for number in numbers), strict=True)) == ARRIVES
    assert len({one.id for one in receiver.got}) == len({one.body for one in receiver.got}) == len(ARRIVES)
    assert {one.state for one in messages} == {IntentState.DONE}


async def test_events_on_request_are_written_with_what_they_report(tmp_path: Path) -> None:
    """Otherwise a webhook would be told of what never happened, or never of what did."""
    async with open_street(tmp_path) as street:
        made = await add_webhook(street.core, owner_id=street.buyer_id, url="https://shop.example/")
        await pause_webhook(street.core, made.webhook.id, owner_id=street.buyer_id)
        host_id, _ = await street.host(slots=20, owner_id=street.buyer_id)
        street.unlink(host_id)
        await street.core.hosts.flush()
    for step in (*dying_writer.STEPS, ""):
        names = street.buyer_id.hex(), host_id.hex()
        process = Forked(dying_writer.main, str(tmp_path), *names, step, log=tmp_path / "log")
        ended = await process.wait()
        assert ended == (-signal.SIGKILL if step else 0), (step, (tmp_path / "log").read_text())

        async with open_street(tmp_path, buyer=street.buyer_id) as street:
            found = await street.core.events.after(street.buyer_id, 0, limit=1_000)
            jobs = await street.core.db.fetch("SELECT id FROM jobs")
            attempts = await street.core.db.fetch("SELECT id FROM attempts")
            ((status,),) = await street.core.db.fetch("SELECT status FROM hosts")
            assert await audit(street.core.db) == []
        accepted = [event.job_id for event in found if isinstance(event, JobAccepted)]
        assigned = [event.lease_id for event in found if isinstance(event, JobAssigned)]
        changed = [event.status for event in found if isinstance(event, HostChanged)]
        assert sorted(accepted) == sorted(bytes(row[0]) for row in jobs), step
        assert sorted(assigned) == sorted(bytes(row[0]) for row in attempts), step
        assert changed[-1:] in ([status], []) and all(a != b for a, b in pairwise(changed)), step
    assert len(accepted) == len(dying_writer.STEPS)
    assert len(assigned) >= 5 and "active" in changed
