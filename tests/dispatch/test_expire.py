"""Expire: deadlines, silent hosts, dropped links; and forgetting what is old."""

import asyncio
from pathlib import Path

from comptoir.dispatch.expire import forget, sweep
from comptoir.dispatch.submit import Order, submit
from comptoir.dispatch.watch import RELINK_S
from comptoir.idempotency import Idempotency
from comptoir.jobs import JobState
from comptoir.reports import audit
from tests.street import MODEL, SIGNUP_UUSD, Street, deliver, finish_well, open_street

DAY_S = 24 * 3600.0


class TestSweep:
    async def test_a_waiting_job_past_its_deadline_expires_and_costs_nothing(self, street: Street) -> None:
        await street.host()
        running, waiting = await street.submit(), await street.submit()
        await finish_well(street.core, running)
        await street.core.background.drain_tasks()
        waiting_again = await street.submit()
        street.clock.advance(seconds=street.core.settings.job_ttl_s - 1)
        await sweep(street.core)
        assert waiting_again.state == JobState.QUEUED

        street.clock.advance(seconds=2)
        await sweep(street.core)

        assert [waiting.over, waiting_again.state] == [True, JobState.EXPIRED]
        assert await street.free_uusd() == SIGNUP_UUSD - running.cost_uusd - waiting.cost_uusd
        assert len(street.core.jobs.queue) == 0
        assert await audit(street.core.db) == []

    async def test_a_running_one_is_stopped_at_the_host_and_paid_as_far_as_it_came(self, street: Street) -> None:
        _, line = await street.host()
        job = await street.submit()
        street.clock.advance(seconds=street.core.settings.job_ttl_s)
        deliver(street.core, job, 4)

        await sweep(street.core)

        assert (job.state, job.cost_uusd) == (JobState.EXPIRED, 400)
        assert [lease for lease, _ in line.cancelled] == [line.sent[0][1].id]

    async def test_a_host_that_sends_nothing_loses_its_lease_to_another(self, street: Street) -> None:
        (_, silent), (_, other) = await street.host(), await street.host()
        job = await street.submit()
        first = job.host_id
        street.clock.advance(seconds=street.core.settings.lease_s + 1)
        for host in street.core.fleet:
            street.core.fleet.seen(host.id)

        await sweep(street.core)

        assert job.state == JobState.RUNNING
        assert job.host_id != first
        assert len(silent.sent) == len(other.sent) == 1
        assert [state for _, state, _ in silent.closed + other.closed] == ["lost"]

    async def test_a_dropped_link_may_come_back_in_time(self, street: Street) -> None:
        host_id, line = await street.host()
        job = await street.submit()
        street.unlink(host_id)
        street.clock.advance(seconds=RELINK_S - 1)
        await sweep(street.core)
        assert job.lease is not None

        street.link(host_id, line)
        street.clock.advance(seconds=2)
        await sweep(street.core)

        assert (job.state, job.host_id) == (JobState.RUNNING, host_id)

    async def test_one_that_does_not_loses_its_leases(self, street: Street) -> None:
        host_id, _ = await street.host()
        await street.host()
        job = await street.submit()
        host_id = job.host_id or host_id
        street.unlink(host_id)
        street.clock.advance(seconds=RELINK_S + 1)

        await sweep(street.core)

        assert job.state == JobState.RUNNING
        assert job.host_id != host_id
        assert await audit(street.core.db) == []

    async def test_a_job_that_can_not_be_ended_holds_up_no_other(self, street: Street) -> None:
        await street.host()
        jobs = [await street.submit() for _ in range(5)]
        broken = jobs[1]
        await street.core.db.run(lambda tx: tx.execute("DELETE FROM holds WHERE job_id = ?", (broken.id,)))
        street.clock.advance(seconds=street.core.settings.job_ttl_s)

        await sweep(street.core)

        assert [job.state == JobState.EXPIRED for job in jobs] == [job is not broken for job in jobs]

    async def test_many_that_expire_share_a_commit(self, street: Street) -> None:
        await street.host()
        for _ in range(30):
            await street.submit()
        street.clock.advance(seconds=street.core.settings.job_ttl_s)
        before = street.core.db.stats.commits

        await sweep(street.core)

        assert len(street.core.jobs.live) == 0
        assert street.core.db.stats.commits - before < 10
        assert await audit(street.core.db) == []


async def finished_job(street: Street, prompt: bytes = b'{"messages":["secret"]}') -> bytes:
    job = await submit(street.core, Order(street.buyer_id, "test", "chat", MODEL, prompt, 10, True))
    await finish_well(street.core, job)
    return job.id


class TestForget:
    async def test_prompts_and_answers_go_after_their_days_and_the_books_stay(self, street: Street) -> None:
        await street.host()
        old = [await finished_job(street) for _ in range(3)]
        street.clock.advance(seconds=street.core.settings.retention_days * DAY_S + 1)
        waiting = [await street.submit() for _ in range(2)]

        assert await forget(street.core) == (0, 3)

        for job_id in old:
            assert (await street.core.jobs.get(job_id, light=False)).body == b""
            assert await street.core.jobs.answer(job_id) == ([], b"")
            assert (await street.core.receipts.get(job_id)).payload
        assert [(await street.core.jobs.get(job.id, light=False)).body for job in waiting] == [
            job.body for job in waiting
        ]
        assert await audit(street.core.db) == []

    async def test_what_is_not_old_or_not_over_stays(self, street: Street) -> None:
        await street.host()
        unfinished = await street.submit()
        street.clock.advance(seconds=street.core.settings.retention_days * DAY_S - 60)
        await street.host()
        late = await finished_job(street)
        street.clock.advance(seconds=120)

        assert await forget(street.core) == (0, 0)

        assert (await street.core.jobs.get(unfinished.id, light=False)).body
        assert (await street.core.jobs.answer(late))[0]

    async def test_a_walk_is_bounded_and_goes_on_where_it_stopped(self, street: Street) -> None:
        await street.host()
        for _ in range(7):
            await finished_job(street)
        street.clock.advance(seconds=street.core.settings.retention_days * DAY_S + 1)
        jobs, older_than_ms = (
            street.core.jobs,
            street.clock.now_ms() - street.core.settings.retention_days * 86_400_000,
        )

        found, after = [], b""
        for _ in range(3):
            touched, then = await jobs.forget(older_than_ms=older_than_ms, after=after, limit=3)
            found.append(touched)
            after = then or b""

        assert found == [3, 3, 1]
        assert then is None

    async def test_no_days_means_for_ever(self, tmp_path: Path) -> None:
        async with open_street(tmp_path, retention_days=0) as street:
            await street.host()
            job_id = await finished_job(street)
            street.clock.advance(seconds=20_000 * DAY_S)

            assert await forget(street.core) == (0, 0)
            assert (await street.core.jobs.answer(job_id))[0]

    async def test_idempotency_keys_go_after_their_time_and_no_sooner(self, street: Street) -> None:
        keys: Idempotency = street.core.idempotency
        first = await keys.claim(owner_id=street.buyer_id, key="a", request=b"x")
        street.clock.advance(seconds=street.core.settings.idempotency_ttl_s - 1)
        assert await forget(street.core) == (0, 0)
        await asyncio.gather(*(keys.claim(owner_id=street.buyer_id, key=f"b{n}", request=b"x") for n in range(5)))
        street.clock.advance(seconds=2)

        assert await forget(street.core) == (1, 0)

        again = await keys.claim(owner_id=street.buyer_id, key="a", request=b"y")
        assert again.first
        assert again.resource_id != first.resource_id
        assert not (await keys.claim(owner_id=street.buyer_id, key="b1", request=b"x")).first
