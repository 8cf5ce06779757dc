"""Continuation across coordinators: another process takes a job over with what the journal kept of it."""

from pathlib import Path

import pytest

from comptoir.dispatch.errors import BadSegment
from comptoir.dispatch.stream import complete
from comptoir.jobs import Reader
from comptoir.kit.signing import SigningKey
from comptoir.link import Usage
from comptoir.reports import audit
from tests.dispatch.continuing import PROMPT, dearer, done, earned, journal, lease_of, lost, receipt
from tests.street import GOES_ON, SIGNUP_UUSD, FakeChannel, deliver, open_street


class TestTakenUp:
    async def test_frames_and_segments_come_back_from_the_journal(self, tmp_path: Path, database_address: str) -> None:
        key = SigningKey.generate()
        async with open_street(tmp_path, database=database_address) as street:
            first, _ = await street.host(offer=GOES_ON, public_key=key.public_key)
            job = await street.submit()
            second, _ = await street.host(offer=dearer(1))
            deliver(street.core, job, 3)
            await lost(street, job)
            deliver(street.core, job, 2)
            buyer, chain, lease = street.buyer_id, job.segments[0].running_hash, lease_of(job)

        async with open_street(tmp_path, database=database_address, buyer=buyer) as street:
            revived = street.core.jobs.live.get(job.id)
            assert revived is not None
            again = lease_of(revived)
            assert (len(revived.frames), revived.running_hash, revived.count) == (3, chain, 3)
            assert (again.id, again.host_id, again.first_frame, again.rate_out) == (lease.id, second, 3, 101_000_000)
            assert again.hash_before == chain
            await done(street, revived, 4)

            assert revived.cost_uusd == 300 + PROMPT + 404
            entries = (await receipt(street, revived)).segments
            assert [entry.authenticated_by for entry in entries] == ["running_hash", "host_key"]
            assert await earned(street, first) == 307 - 36
            assert await journal(street) == 0
            assert await audit(street.core.db) == []

    async def test_one_that_waited_for_a_host_goes_on_where_it_stood(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            await street.host(offer=GOES_ON)
            job = await street.submit()
            deliver(street.core, job, 3)
            other, _ = await street.host(offer=GOES_ON)
            street.unlink(other)
            await lost(street, job)
            buyer = street.buyer_id

        async with open_street(tmp_path, buyer=buyer) as street:
            revived = street.core.jobs.live.get(job.id)
            assert revived is not None
            assert revived in street.core.jobs.live.broken
            street.link(other, FakeChannel())
            await street.core.background.drain_tasks()
            assert lease_of(revived).first_frame == 3

    async def test_what_a_liar_delivered_stays_unpaid(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            for _ in range(2):
                await street.host(offer=GOES_ON)
            job = await street.submit()
            deliver(street.core, job, 3)
            bad = lease_of(job).host_id
            with pytest.raises(BadSegment):
                await complete(street.core, job, finish_reason="stop", usage=Usage(1, 3), running_hash=b"c" * 32)
            buyer = street.buyer_id

        async with open_street(tmp_path, buyer=buyer) as street:
            revived = street.core.jobs.live.get(job.id)
            assert revived is not None
            await done(street, revived, 1)
            assert revived.cost_uusd == 100 + PROMPT
            assert await earned(street, bad) == 0
            assert await audit(street.core.db) == []

    async def test_a_client_on_the_line_pays_nothing_for_any_part(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            for _ in range(2):
                await street.host(offer=GOES_ON)
            job = await street.submit(detached=False)
            deliver(street.core, job, 3)
            await lost(street, job)
            deliver(street.core, job, 1)
            buyer = street.buyer_id

        async with open_street(tmp_path, buyer=buyer) as street:
            row = await street.core.jobs.get(job.id)
            assert (row.state, row.cost_uusd) == ("failed", 0)
            assert await street.free_uusd() == SIGNUP_UUSD
            assert await audit(street.core.db) == []


class TestBeginningAnew:
    async def test_frames_that_died_with_host_and_coordinator_are_counted_as_a_restart(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            for _ in range(2):
                await street.host(offer=GOES_ON)
            job = await street.submit()
            deliver(street.core, job, 5)
            buyer = street.buyer_id

        async with open_street(tmp_path, buyer=buyer) as street:
            revived = street.core.jobs.live.get(job.id)
            assert revived is not None
            told = Reader(revived, start=4)
            fresh = Reader(revived)
            # The worker came back and had sent two of its five frames again when it died.
            lease_of(revived).frames_at_worker = 5
            deliver(street.core, revived, 2)
            await lost(street, revived)

            assert (revived.restarts, len(revived.frames)) == (1, 2)
            assert await told.next() is None
            assert told.outdated
            assert len(await fresh.next() or []) == 2
            assert not fresh.outdated
            assert (await street.core.jobs.get(job.id)).restarts == 1

    async def test_nothing_is_lost_once_the_worker_has_sent_all_again(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            for _ in range(2):
                await street.host(offer=GOES_ON)
            job = await street.submit()
            deliver(street.core, job, 5)
            buyer = street.buyer_id

        async with open_street(tmp_path, buyer=buyer) as street:
            revived = street.core.jobs.live.get(job.id)
            assert revived is not None
            lease_of(revived).frames_at_worker = 5
            deliver(street.core, revived, 5)
            await lost(street, revived)

            assert revived.restarts == 0
