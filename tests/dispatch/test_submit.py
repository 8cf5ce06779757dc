"""Submit: accepted means durable and paid for; refused means that nothing happened."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.drain import Shutdown
from comptoir.dispatch.errors import NoHostPossible, PromptTooLong, QueueFull, TooManyJobs, UnknownModel
from comptoir.dispatch.onboard import add_user
from comptoir.dispatch.submit import Order, submit, submit_verb
from comptoir.hosts import ACTIVE, RemoteHosts
from comptoir.jobs import JobExists, JobState
from comptoir.kinds import Part, hold_of
from comptoir.kit.errors import Unavailable
from comptoir.kit.ids import new_id
from comptoir.ledger import InsufficientCredit
from comptoir.reports import audit
from tests.street import MODEL, SIGNUP_UUSD, Street, open_street, order


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[Street]:
    """A house with small bounds."""
    bounds: dict[str, Any] = {"queue_jobs_max": 1, "jobs_per_buyer_max": 3, "prompt_bytes_max": 1024}
    async with open_street(tmp_path, **bounds) as opened:
        yield opened


async def nothing_happened(street: Street) -> bool:
    jobs = await street.core.db.fetch("SELECT count(*) FROM jobs")
    holds = await street.core.db.fetch("SELECT count(*) FROM holds")
    free = [host.slots.free for host in street.core.fleet]
    return (jobs, holds, street.core.state(Buyers).in_flight.counts(), free) == ([(0,)], [(0,)], {}, [1] * len(free))


class TestSubmit:
    async def test_a_free_host_gets_the_job_once_it_is_durable(self, street: Street) -> None:
        host_id, line = await street.host()

        job = await street.submit()

        assert (job.state, job.host_id) == (JobState.RUNNING, host_id)
        assert [sent for sent, _ in line.sent] == [job]
        row = await street.core.jobs.get(job.id)
        assert (row.state, row.host_id, row.attempt_id) == ("running", host_id, line.sent[0][1].id)
        assert [event[0] for event in await street.core.jobs.events(job.id)] == ["queued", "running"]

    async def test_the_hold_covers_the_prompt_and_every_token_of_the_answer(self, street: Street) -> None:
        await street.host()

        job = await street.submit(max_tokens=10)

        expected = hold_of(Part(MODEL, job.terms.input_max, output_max=10), (1_000_000, 100_000_000))
        assert job.terms.hold_uusd == expected == job.terms.input_max + 10 * 100
        assert await street.free_uusd() == SIGNUP_UUSD - expected

    async def test_without_a_free_host_it_waits_its_turn(self, street: Street) -> None:
        await street.host()
        first, second, third = [await street.submit() for _ in range(3)]

        before = [street.core.jobs.queue.before(job.id) for job in (first, second, third)]

        assert before == [None, 0, 1]
        assert (await street.core.jobs.get(third.id)).state == "queued"

    async def test_many_at_once_share_commits_and_one_without_credit_stops_no_other(self, street: Street) -> None:
        await street.host(slots=50)
        poor = await add_user(street.core, username="bob", email=None, password=None, credit_uusd=100)
        before = street.core.db.stats.commits

        orders = [order(poor.user.id if n == 7 else street.buyer_id) for n in range(40)]
        done = await asyncio.gather(*(submit(street.core, one) for one in orders), return_exceptions=True)

        assert isinstance(done[7], InsufficientCredit)
        assert sum(not isinstance(one, Exception) for one in done) == 39
        assert street.core.db.stats.commits - before < 20
        assert await audit(street.core.db) == []

    async def test_a_host_that_comes_here_meanwhile_has_each_slot_taken_once(
        self, street: Street, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Chosen where another coordinator has it, it links here while the job is written: its slots are counted anew
        then."""
        host_id, line = await street.host()
        street.unlink(host_id)
        RemoteHosts(street.core.fleet).note_remote(host_id, node_id=b"another-16-bytes", status=ACTIVE, free=1, total=1)
        batch = street.core.db.batch

        async def comes_meanwhile(verb: Any, item: Any, **named: Any) -> Any:
            written = await batch(verb, item, **named)
            if verb is submit_verb:
                street.link(host_id, line)
            return written

        monkeypatch.setattr(street.core.db, "batch", comes_meanwhile)
        job = await street.submit()
        await street.core.background.drain_tasks()

        assert (job.state, job.host_id) == (JobState.RUNNING, host_id)
        assert street.core.fleet.get(host_id).slots.free == 0


class TestRefused:
    async def test_a_model_nobody_offers(self, street: Street) -> None:
        await street.host()

        with pytest.raises(UnknownModel, match=MODEL):
            await submit(street.core, Order(street.buyer_id, "test", "chat", "nope", b"{}", 1, True))

        assert await nothing_happened(street)

    async def test_a_job_that_no_host_could_ever_run(self, street: Street) -> None:
        await street.host()

        with pytest.raises(NoHostPossible):
            await street.submit(max_tokens=200_000)

        assert await nothing_happened(street)

    async def test_too_little_credit(self, street: Street) -> None:
        await street.host()

        with pytest.raises(InsufficientCredit) as refused:
            await street.submit(max_tokens=20_000)

        assert refused.value.free_uusd == SIGNUP_UUSD
        assert await nothing_happened(street)

    async def test_a_prompt_past_the_bound(self, narrow: Street) -> None:
        await narrow.host()

        with pytest.raises(PromptTooLong):
            await submit(narrow.core, Order(narrow.buyer_id, "test", "chat", MODEL, b" " * 1025, 1, True))

        assert await nothing_happened(narrow)

    async def test_a_full_line_and_then_one_job_too_many_of_one_buyer(self, narrow: Street) -> None:
        await narrow.host()
        for _ in range(2):
            await narrow.submit()
        with pytest.raises(QueueFull):
            await narrow.submit()

        await narrow.host()
        await narrow.core.background.drain_tasks()
        await narrow.submit()
        with pytest.raises(TooManyJobs):
            await narrow.submit()

        assert narrow.core.state(Buyers).in_flight.counts() == {narrow.buyer_id: 3}
        assert await audit(narrow.core.db) == []

    async def test_a_house_that_drains(self, street: Street) -> None:
        await street.host()
        street.core.state(Shutdown).draining = True

        with pytest.raises(Unavailable):
            await street.submit()

        assert await nothing_happened(street)


class TestChosenId:
    async def test_the_second_job_of_an_id_is_refused_and_holds_nothing(self, either_street: Street) -> None:
        await either_street.host(slots=2)
        job_id = new_id()
        first = await either_street.submit(job_id=job_id)

        with pytest.raises(JobExists):
            await either_street.submit(job_id=job_id)

        assert either_street.core.jobs.live.get(job_id) is first
        assert either_street.core.state(Buyers).in_flight.counts() == {either_street.buyer_id: 1}
        assert await audit(either_street.core.db) == []

    async def test_side_by_side_one_of_them_makes_the_job(self, either_street: Street) -> None:
        _, line = await either_street.host(slots=8)
        job_id = new_id()

        done = await asyncio.gather(*(either_street.submit(job_id=job_id) for _ in range(5)), return_exceptions=True)

        assert sorted(type(one).__name__ for one in done) == ["JobExists"] * 4 + ["LiveJob"]
        assert len(line.sent) == 1
        assert [host.slots.free for host in either_street.core.fleet] == [7]
        assert await audit(either_street.core.db) == []
