"""Hedge: a second host is started when the first frame is late; the first to deliver has the job, the other stops
unpaid."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.hedge import begin, heard
from comptoir.dispatch.second_host import Hedges
from comptoir.dispatch.stream import complete, take_frames
from comptoir.hosts import POLL
from comptoir.jobs import Fault, JobState, Lease, LiveJob
from comptoir.kit.errors import Unavailable
from comptoir.link import Done, Fail, Frame, Frames, Usage
from comptoir.reports import audit
from tests.dispatch.continuing import earned, lease_of
from tests.street import GOES_ON, FakeChannel, Street, deliver, open_street


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    async with open_street(tmp_path, hedge=True) as opened:
        yield opened


class Pair:
    """A job at its first host, and the second that was started beside it."""

    def __init__(self, street: Street, job: LiveJob, channels: dict[bytes, FakeChannel]) -> None:
        self.street, self.job, self.channels = street, job, channels
        self.first = lease_of(job)
        begin(street.core, job, self.first)
        assert job.hedge is not None
        self.second: Lease = job.hedge
        assert channels[self.second.host_id].sent == [(job, self.second)]

    def says(self, message: Frames | Done | Fail) -> None:
        """Have the second host say *message*."""
        heard(self.street.core, self.second.host_id, message, self._replay)

    def _replay(self, message: Any) -> None:
        if isinstance(message, Frames):
            take_frames(self.street.core, self.job, message.seq, message.items)

    def running(self) -> list[int]:
        """Slots in use at the first host and the second."""
        fleet = self.street.core.fleet
        return [fleet.get(lease.host_id).slots.running for lease in (self.first, self.second)]

    async def attempts(self) -> list[tuple[bytes, str, str | None, int]]:
        rows = await self.street.core.jobs.attempts(self.job.id)
        return sorted((row.host_id, row.state, row.fault, row.paid_uusd) for row in rows)


async def pair(street: Street) -> Pair:
    channels = dict([await street.host(offer=GOES_ON), await street.host(offer=GOES_ON)])
    return Pair(street, await street.submit(), channels)


def blamed(street: Street) -> int:
    return sum(host.stored().jobs_failed + host.stored().jobs_lost for host in street.core.fleet)


class TestFirstWins:
    async def test_the_second_is_stopped_and_unpaid(self, street: Street) -> None:
        two = await pair(street)
        assert two.running() == [1, 1]

        deliver(street.core, two.job, 2)
        assert (two.job.hedge, street.core.state(Hedges).by_lease, two.running()) == (None, {}, [1, 0])
        await complete(street.core, two.job, finish_reason="stop", usage=Usage(0, 2))
        await street.core.background.drain_tasks()

        assert two.channels[two.second.host_id].cancelled == [(two.second.id, "the first host delivered")]
        assert await two.attempts() == sorted(
            [(two.first.host_id, "done", None, 176), (two.second.host_id, "failed", None, 0)]
        )
        assert blamed(street) == 0
        assert await audit(street.core.db) == []

    async def test_a_second_that_ends_without_a_frame_changes_nothing(self, street: Street) -> None:
        two = await pair(street)

        two.says(Fail(two.second.id, "engine_failed", "it broke", "host"))
        assert (two.job.lease, two.job.hedge, two.running()) == (two.first, None, [1, 0])

        deliver(street.core, two.job, 1)
        await complete(street.core, two.job, finish_reason="stop", usage=Usage(0, 1))
        await street.core.background.drain_tasks()
        assert blamed(street) == 0
        assert await audit(street.core.db) == []


class TestSecondWins:
    async def test_it_gets_the_job_and_what_it_said_meanwhile_counts(self, street: Street) -> None:
        two = await pair(street)

        two.says(Frames(two.second.id, 0, [Frame("a")]))
        two.says(Frames(two.second.id, 1, [Frame("b")]))
        assert two.job.frames == []
        await street.core.background.drain_tasks()

        assert (two.job.lease, two.job.state, two.running()) == (two.second, JobState.RUNNING, [0, 1])
        assert [frame.text for frame in two.job.frames] == ["a", "b"]
        assert two.channels[two.first.host_id].closed == [(two.first.id, "lost", 0)]
        await complete(street.core, two.job, finish_reason="stop", usage=Usage(0, 2))
        assert await two.attempts() == sorted(
            [(two.first.host_id, "failed", None, 0), (two.second.host_id, "done", None, 176)]
        )
        assert await earned(street, two.first.host_id) == 0
        assert (blamed(street), two.running(), street.core.state(Hedges).by_lease) == (0, [0, 0], {})
        assert await audit(street.core.db) == []

    async def test_a_job_that_ends_while_it_is_handed_over_ends_once(self, street: Street) -> None:
        two = await pair(street)

        two.says(Frames(two.second.id, 0, [Frame("a")]))
        await cancel(street.core, two.job)
        await street.core.background.drain_tasks()

        assert two.job.state == JobState.CANCELLED
        assert (two.running(), street.core.state(Hedges).by_lease, two.job.hedge) == ([0, 0], {}, None)
        assert await audit(street.core.db) == []

    async def test_while_the_database_is_away_the_first_keeps_it(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        two = await pair(street)

        async def away(*args: Any, **named: Any) -> None:
            raise Unavailable("the database is out of reach")

        with monkeypatch.context() as patched:
            patched.setattr(street.core.db, "batch", away)
            two.says(Frames(two.second.id, 0, [Frame("a")]))
            for _ in range(10):
                await asyncio.sleep(0)

        assert (two.job.lease, two.running(), street.core.state(Hedges).by_lease) == (two.first, [1, 0], {})
        deliver(street.core, two.job, 1)
        await complete(street.core, two.job, finish_reason="stop", usage=Usage(0, 1))
        await street.core.background.drain_tasks()
        assert await audit(street.core.db) == []


class TestNeither:
    async def test_a_cancellation_stops_both(self, street: Street) -> None:
        two = await pair(street)

        await cancel(street.core, two.job)
        await street.core.background.drain_tasks()

        assert two.running() == [0, 0]
        assert [len(channel.cancelled) for channel in two.channels.values()] == [1, 1]
        assert await audit(street.core.db) == []

    async def test_a_first_host_that_is_lost_leaves_the_job_to_the_line(self, street: Street) -> None:
        two = await pair(street)

        await revoke_lease(street.core, two.job, two.first, "it broke", fault=Fault.HOST)
        await street.core.background.drain_tasks()

        # A fresh lease, on the host that had been the second: durable like any other.
        assert lease_of(two.job).host_id == two.second.host_id
        assert lease_of(two.job) is not two.second
        assert two.running() == [0, 1]


class TestBegin:
    async def test_it_waits_as_long_as_the_host_may_take(self, street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
        waits: list[float] = []
        loop = asyncio.get_running_loop()
        call_later = loop.call_later

        def later(wait_s: float, call: Any, *args: Any) -> Any:
            if call is begin:
                waits.append(wait_s)
            return call_later(wait_s, call, *args)

        monkeypatch.setattr(loop, "call_later", later)
        host_id, _ = await street.host(offer=GOES_ON)
        for _ in range(50):
            street.core.fleet.first_frame(host_id, "m", 100.0)

        await street.submit()

        assert waits == [pytest.approx(0.1, rel=0.3)]

    async def test_with_nobody_free_or_only_hosts_that_can_not_be_stopped_there_is_none(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        job = await street.submit()
        await street.host(transport=POLL)

        begin(street.core, job, lease_of(job))

        assert job.hedge is None

    async def test_a_host_that_has_begun_is_left_alone(self, street: Street) -> None:
        await street.host(offer=GOES_ON)
        await street.host(offer=GOES_ON)
        job = await street.submit()
        deliver(street.core, job, 1)

        begin(street.core, job, lease_of(job))

        assert job.hedge is None

    async def test_it_is_off_unless_asked_for(self, tmp_path: Path) -> None:
        async with open_street(tmp_path) as street:
            assert street.core.settings.hedge is False
