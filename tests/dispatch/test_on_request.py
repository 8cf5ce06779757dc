"""Events on request: rows for owners whose webhooks ask for them, and nothing at all for the others."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.expire import sweep
from comptoir.dispatch.webhooks import _message, add_webhook, delete_webhook, pause_webhook
from comptoir.events import Event, HostChanged, JobAccepted, JobAssigned, JobEnded, NumberedEvent
from comptoir.jobs import Fault
from comptoir.reports import audit
from comptoir.webhooks import Webhook, WebhookState
from tests.street import FakeChannel, Street, finish_well, open_street

URL = "https://shop.example/"


async def ask(street: Street, *types: str) -> bytes:
    """Give the buyer a paused webhook, which asks as an active one does and sends nothing."""
    made = await add_webhook(street.core, owner_id=street.buyer_id, url=URL, types=types)
    await pause_webhook(street.core, made.webhook.id, owner_id=street.buyer_id)
    return made.webhook.id


async def told(street: Street) -> list[NumberedEvent]:
    """Return the buyer's events after the sign-up credit; audited, since numbers must have no gap."""
    assert await audit(street.core.db) == []
    return await street.core.events.after(street.buyer_id, 1)


class Away:
    """A database that is not there."""

    def run(self, *_: object, **__: object) -> None:
        raise ConnectionError


def kinds(events: Sequence[Event]) -> list[type[Event]]:
    return [type(event) for event in events]


class TestJobs:
    async def test_a_job_is_told_when_accepted_and_at_each_lease(self, street: Street) -> None:
        await ask(street, "job.accepted", "job.assigned")
        heard = list[Event]()
        for kind in (JobAccepted, JobAssigned):
            street.core.events.subscribe(kind, heard.append)
        first, line = await street.host()
        job = await street.submit()
        second, other = await street.host()
        ((_, lease),) = line.sent
        await revoke_lease(street.core, job, lease, "gone", fault=Fault.HOST)
        ((_, again),) = other.sent
        await finish_well(street.core, job)

        now, ada = street.clock.now_ms(), street.buyer_id
        wanted = [
            JobAccepted(ada, now, 2, job.id, "m"),
            JobAssigned(ada, now, 3, job.id, lease.id, first),
            JobAssigned(ada, now, 4, job.id, again.id, second),
        ]
        assert await told(street) == [*wanted, JobEnded(ada, now, 5, job.id, "completed", job.cost_uusd)]
        assert heard == wanted

    async def test_only_what_is_asked_for_is_told(self, street: Street) -> None:
        for asked, found in (("job.assigned", [JobAssigned]), ("job.accepted", [JobAccepted]), ("job.ended", [])):
            webhook_id = await ask(street, asked)
            before = await street.core.events.newest(street.buyer_id)
            await street.host()
            await street.submit()

            assert kinds(await street.core.events.after(street.buyer_id, before)) == found
            await delete_webhook(street.core, webhook_id, owner_id=street.buyer_id)

    async def test_a_webhook_for_all_asks_for_all_until_the_last_is_deleted(self, street: Street) -> None:
        await street.host(slots=9)
        both = [await ask(street), await ask(street)]
        for webhook_id in both:
            await street.submit()
            await delete_webhook(street.core, webhook_id, owner_id=street.buyer_id)
        await street.submit()

        assert kinds(await told(street)) == [JobAccepted, JobAssigned] * 2

    async def test_a_job_that_waited_is_told_of_unless_the_webhook_is_gone(self, street: Street) -> None:
        for still, found in ((True, [JobAccepted, JobAssigned]), (False, [JobAccepted])):
            webhook_id = await ask(street)
            host_id, line = await street.host()
            street.unlink(host_id)
            before = await street.core.events.newest(street.buyer_id)
            await street.submit()
            if not still:
                await delete_webhook(street.core, webhook_id, owner_id=street.buyer_id)
            street.link(host_id, line)
            await street.core.background.drain_tasks()

            assert len(line.sent) == 1
            assert kinds(await street.core.events.after(street.buyer_id, before)) == found
            street.unlink(host_id)
            if still:
                await delete_webhook(street.core, webhook_id, owner_id=street.buyer_id)

    async def test_a_job_from_before_the_webhook_is_told_of_when_it_ends(self, street: Street) -> None:
        host_id, line = await street.host()
        street.unlink(host_id)
        job = await street.submit()
        await ask(street)
        street.link(host_id, line)
        await street.core.background.drain_tasks()
        await finish_well(street.core, job)

        assert kinds(await told(street)) == [JobEnded]

    async def test_a_job_is_told_of_after_a_restart(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            await ask(street)
            host_id, _ = await street.host()
            street.unlink(host_id)
            await street.submit()
        async with open_street(tmp_path, buyer=street.buyer_id) as street:
            street.link(host_id, FakeChannel())
            await street.core.background.drain_tasks()

            assert kinds(await told(street)) == [JobAccepted, JobAssigned]


class TestMessages:
    def test_whatever_has_a_number_again_is_a_message_of_its_own(self) -> None:
        """A database that lost commits gives numbers again, and all of a job's events have one subject."""
        ada, job, lease, host = (bytes([n]) * 16 for n in range(4))
        hook = Webhook(
            id=b"w" * 16, owner_id=ada, url=URL, types=(), note="", parallel=1, state=WebhookState.ACTIVE, why="",
            cursor=0, failing_since_ms=None, old_secret_until_ms=None, created_ms=0,
        )  # fmt: skip
        events = [
            JobAccepted(ada, 1, 5, job, "m"),
            JobAssigned(ada, 1, 5, job, lease, host),
            JobAssigned(ada, 1, 5, job, host, lease),
            JobEnded(ada, 1, 5, job, "completed", 1),
        ]

        ids = [_message(hook, event).id for event in events]

        assert len(set(ids)) == len(events)
        assert ids == [_message(hook, event).id for event in events]
        assert _message(hook, events[-1]).key == f"{hook.id.hex()}:5:{job.hex()}", "as it was before there were others"


class TestHosts:
    async def test_a_hosts_owner_is_told_what_is_written(self, street: Street) -> None:
        """Once for all changes between two flushes: what a host is, not how often it tried."""
        await ask(street, "host.changed")
        host_id, line = await street.host(owner_id=street.buyer_id)
        stranger, _ = await street.host()
        told_of = partial(HostChanged, street.buyer_id, street.clock.now_ms())
        await street.core.hosts.flush()
        street.core.fleet.drain(host_id)
        street.core.fleet.drain(stranger)
        await street.core.hosts.flush()
        street.unlink(host_id)
        street.link(host_id, line)
        street.core.fleet.drain(host_id)
        await street.core.hosts.flush()
        await street.core.hosts.bar(host_id, for_good=True)

        assert await told(street) == [
            told_of(2, host_id, "active"), told_of(3, host_id, "draining"), told_of(4, host_id, "offline"),
        ]  # fmt: skip

    async def test_an_owner_who_does_not_ask_is_not_told(self, street: Street) -> None:
        await ask(street, "job.ended")
        await street.host(owner_id=street.buyer_id)
        await street.core.hosts.flush()

        assert await told(street) == []

    async def test_a_change_whose_write_failed_is_told_with_the_next(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await ask(street, "host.changed")
        await street.host(owner_id=street.buyer_id)
        monkeypatch.setattr(street.core.hosts, "_db", Away())
        with pytest.raises(ConnectionError):
            await street.core.hosts.flush()
        monkeypatch.undo()
        await street.core.hosts.flush()

        assert kinds(await told(street)) == [HostChanged]

    async def test_a_host_that_did_not_come_back_after_a_crash_is_told_of_as_gone(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            await ask(street, "host.changed")
            host_id, _ = await street.host(owner_id=street.buyer_id)
            back, line = await street.host(owner_id=street.buyer_id)
            await street.core.hosts.flush()
            street.core.fleet.changed.clear()
            for each in (host_id, back):
                street.core.fleet.remove(each)  # As after kill -9: what is stored says that they are there.
        async with open_street(tmp_path, buyer=street.buyer_id) as street:
            street.clock.advance(seconds=street.core.settings.host_away_s + 1)
            street.link(back, line)
            await sweep(street.core)
            await sweep(street.core)
            await street.core.hosts.flush()

            statuses = [(event.host_id, event.status) for event in await told(street)]  # type: ignore[attr-defined]
            assert sorted(statuses[:2]) == sorted([(host_id, "active"), (back, "active")])
            assert statuses[2:] == [(host_id, "offline")]
