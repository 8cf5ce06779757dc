"""Stored jobs: multi-row writes, and what one bad item in a batch does to its neighbours (nothing)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from msgspec import structs

from comptoir.jobs import (
    TABLES,
    AttemptState,
    Fault,
    FinishRow,
    JobRow,
    Jobs,
    JobState,
    NewJob,
    Start,
    UnknownJob,
    finish_rows,
    insert_jobs,
    load_states,
    requeue_rows,
    start_rows,
)
from comptoir.kinds import Terms
from comptoir.kit.db import Database, Tx
from comptoir.kit.ids import new_id
from comptoir.link import Frame
from tests.conftest import MakeDatabase
from tests.rooms.jobs.test_live import make_job

OWNER, OTHER, HOST, NODE = b"o" * 16, b"p" * 16, b"h" * 16, b"n" * 16


@pytest.fixture
async def database(make_database: MakeDatabase) -> AsyncIterator[Database]:
    async with make_database(TABLES) as opened:
        yield opened


async def unfinished(jobs: Jobs) -> list[JobRow]:
    """Return the unfinished jobs, oldest first, by taking them over."""
    return await jobs.claim_orphans(node_id=NODE, of=[NODE], limit=10_000)


@pytest.fixture
async def jobs(database: Database) -> Jobs:
    return Jobs(database)


def make_new(*, job_id: bytes | None = None, owner_id: bytes = OWNER, body: bytes = b"{}") -> NewJob:
    return NewJob(job_id or new_id(), owner_id, "test", "chat", "m", body, Terms(10, 20, 1, 2, 50), True, 99, 7, NODE)


def make_start(job_id: bytes, *, event_seq: int = 1) -> Start:
    return Start(job_id, new_id(), HOST, 0, 8, event_seq, NODE, NODE, 1, 2)


def make_finish(
    start: Start, *, state: JobState = JobState.COMPLETED, frames: bytes = b"", event_seq: int = 2
) -> FinishRow:
    return FinishRow(
        job_id=start.job_id, state=state, at_ms=9, event_seq=event_seq, attempt_id=start.attempt_id,
        attempt_state=AttemptState.DONE, host_id=HOST, end_frame=3, input_count=4, output_count=5, cost_uusd=6,
        paid_uusd=5, finish_reason="stop", fault=Fault.NONE, error_code="", error_message="", running_hash=b"c", signature=b"s",
        frames=frames, usage=b"{}", node_id=NODE, count=5,
    )  # fmt: skip


def insert_verb(tx: Tx, items: list[tuple[NewJob, Start | None]]) -> list[None | Exception]:
    insert_jobs(tx, [job for job, _ in items], [start for _, start in items if start is not None])
    return [None] * len(items)


class TestInsert:
    async def test_what_went_in_comes_out(self, jobs: Jobs, database: Database) -> None:
        new = make_new(body=b'{"a":1}')
        await database.run(lambda tx: insert_jobs(tx, [new], []))

        row = await jobs.get(new.id, light=False)

        assert {name: getattr(row, name) for name in NewJob.__struct_fields__} == {
            name: getattr(new, name) for name in NewJob.__struct_fields__
        }
        assert (row.state, row.host_id, row.cost_uusd) == ("queued", None, 0)
        assert await jobs.events(new.id) == [("queued", 7, None)]

    async def test_one_with_a_host_is_running_at_once(self, jobs: Jobs, database: Database) -> None:
        first, second = make_new(), make_new()
        start = make_start(second.id)
        await database.run(lambda tx: insert_jobs(tx, [first, second], [start]))

        assert [(await jobs.get(job.id)).state for job in (first, second)] == ["queued", "running"]
        assert await jobs.events(second.id) == [("queued", 7, None), ("running", 8, None)]
        assert await database.fetch("SELECT id, job_id, state FROM attempts") == [
            (start.attempt_id, second.id, "leased")
        ]

    @pytest.mark.parametrize("count", [1, 2, 37, 600])
    async def test_any_number_at_once(self, jobs: Jobs, database: Database, count: int) -> None:
        new = [make_new() for _ in range(count)]
        await database.run(lambda tx: insert_jobs(tx, new, [make_start(job.id) for job in new[::2]]))

        states = Counter(row.state for row in await unfinished(jobs))
        assert (states["queued"], states["running"]) == (count // 2, count - count // 2)
        assert await jobs.ended_counts(before_ms=2**60) == {}

    async def test_a_poisoned_item_fails_alone(self, jobs: Jobs, database: Database) -> None:
        there = make_new()
        await database.run(lambda tx: insert_jobs(tx, [there], []))
        items = [(make_new(), None), (make_new(job_id=there.id), None), (make_new(), None)]

        done = await asyncio.gather(*(database.batch(insert_verb, item) for item in items), return_exceptions=True)

        assert [isinstance(one, Exception) for one in done] == [False, True, False]
        assert len(await unfinished(jobs)) == 3
        ((events,),) = await database.fetch("SELECT count(*) FROM job_events")
        assert events == 3


class TestLife:
    async def test_started_lost_started_and_finished(self, jobs: Jobs, database: Database) -> None:
        new = make_new()
        first, second = make_start(new.id), make_start(new.id, event_seq=3)
        lost = make_finish(first, state=JobState.QUEUED)
        live = make_job()
        live.append([Frame("a")])

        await database.run(lambda tx: insert_jobs(tx, [new], []))
        await database.run(lambda tx: start_rows(tx, [first]))
        await database.run(lambda tx: requeue_rows(tx, [lost]))
        between = await jobs.get(new.id)
        await database.run(lambda tx: start_rows(tx, [second]))
        await database.run(lambda tx: finish_rows(tx, [make_finish(second, frames=live.encode_frames(), event_seq=4)]))

        assert (between.state, between.host_id, between.attempt_id) == ("queued", None, None)
        row = await jobs.get(new.id)
        assert (row.state, row.attempt_id, row.cost_uusd, row.finished_ms) == ("completed", second.attempt_id, 6, 9)
        assert [event[0] for event in await jobs.events(new.id)] == [
            "queued",
            "running",
            "queued",
            "running",
            "completed",
        ]
        assert await jobs.events_count(new.id) == 5
        assert await jobs.answer(new.id) == ([Frame("a")], b"{}")

    async def test_the_stored_state_is_what_compare_and_set_needs(self, database: Database) -> None:
        waiting, running = make_new(), make_new(owner_id=OTHER)
        start = make_start(running.id)
        await database.run(lambda tx: insert_jobs(tx, [waiting, running], [start]))

        states = await database.run(lambda tx: load_states(tx, [waiting.id, running.id, new_id()]))

        assert {key: (one.state, one.attempt_id, one.owner_id) for key, one in states.items()} == {
            waiting.id: ("queued", None, OWNER),
            running.id: ("running", start.attempt_id, OTHER),
        }


class TestReads:
    async def test_another_owners_job_is_unknown(self, jobs: Jobs, database: Database) -> None:
        new = make_new()
        await database.run(lambda tx: insert_jobs(tx, [new], []))

        with pytest.raises(UnknownJob):
            await jobs.get(new.id, owner_id=OTHER)
        with pytest.raises(UnknownJob):
            await jobs.get(new_id())
        assert (await jobs.get(new.id, owner_id=OWNER)).id == new.id

    async def test_a_light_read_leaves_the_prompt(self, jobs: Jobs, database: Database) -> None:
        new = make_new(body=b"x" * 1000)
        await database.run(lambda tx: insert_jobs(tx, [new], []))

        assert (await jobs.get(new.id)).body == b""
        assert (await jobs.get(new.id, light=False)).body == b"x" * 1000

    async def test_everybodys_are_counted_by_owner(self, jobs: Jobs, database: Database) -> None:
        new = [*(make_new() for _ in range(5)), make_new(owner_id=OTHER)]
        await database.run(lambda tx: insert_jobs(tx, new, [make_start(new[4].id)]))

        assert [row.id for row in await jobs.newest(owner_id=None, state="running")] == [new[4].id]
        assert await jobs.count_by_owner([OWNER, OTHER, HOST]) == {OWNER: 5, OTHER: 1}

    async def test_what_is_unfinished_comes_oldest_first(self, jobs: Jobs, database: Database) -> None:
        new = [make_new() for _ in range(4)]
        starts = [make_start(job.id) for job in new[:2]]
        await database.run(lambda tx: insert_jobs(tx, new, starts))
        await database.run(lambda tx: finish_rows(tx, [make_finish(starts[0])]))

        assert [row.id for row in await unfinished(jobs)] == [job.id for job in new[1:]]


class TestTakeOver:
    async def test_only_the_jobs_of_those_who_are_gone_change_hands(self, jobs: Jobs, database: Database) -> None:
        gone, here = b"g" * 16, b"h" * 16
        new = [structs.replace(make_new(), node_id=node) for node in (gone, here, gone)]
        await asyncio.gather(*(database.batch(insert_verb, (job, None)) for job in new))

        taken = await jobs.claim_orphans(node_id=NODE, of=[gone])

        assert [row.id for row in taken] == [new[0].id, new[2].id]
        assert await jobs.owners() == {NODE, here}
        assert await jobs.claim_orphans(node_id=NODE, of=[gone]) == []

    async def test_jobs_from_before_there_were_owners_are_taken_by_none(self, jobs: Jobs, database: Database) -> None:
        job = make_new()
        await database.batch(insert_verb, (job, None))
        await database.run(lambda tx: tx.execute("UPDATE jobs SET node_id = NULL"))

        assert await jobs.owners() == {None}
        assert [row.id for row in await jobs.claim_orphans(node_id=NODE, of=[None])] == [job.id]

    async def test_it_takes_no_more_than_asked_for(self, jobs: Jobs, database: Database) -> None:
        await asyncio.gather(*(database.batch(insert_verb, (make_new(), None)) for _ in range(3)))

        assert len(await jobs.claim_orphans(node_id=b"m" * 16, of=[NODE], limit=2)) == 2
