"""Pages of an owner's jobs and their totals, compared with what counting and skipping rows one by one gives."""

import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from msgspec import structs

from comptoir.events import Events, JobEnded
from comptoir.events.store import insert_rows
from comptoir.events.tables import EVENTS
from comptoir.jobs import FINAL, TABLES, Jobs, JobState, NewJob, insert_jobs, lists
from comptoir.kinds import Terms
from comptoir.kit.db import Database, Tx, readers
from comptoir.kit.ids import new_id
from tests.conftest import MakeDatabase

OWNER, OTHER, NODE = b"o" * 16, b"p" * 16, b"n" * 16

FAILED = (JobState.FAILED.value, JobState.EXPIRED.value)
FILTERS = [(), (JobState.QUEUED.value,), (JobState.RUNNING.value,), (JobState.COMPLETED.value,), FAILED]


class Bought:
    """The jobs of one owner, as they are stored and as a list in memory has them."""

    def __init__(self, database: Database, seed: int) -> None:
        self._database = database
        self._random = random.Random(seed)
        self.states: dict[bytes, str] = {}
        self.events = 0
        self._late: list[bytes] = []

    async def buy(self, count: int) -> None:
        """Store new jobs of the owner, and one of another."""
        new = [self._job(new_id()) for _ in range(count)]
        self._late.append(new_id())
        self.states |= {job.id: JobState.QUEUED.value for job in new}
        other = structs.replace(self._job(new_id()), owner_id=OTHER)
        await self._database.run(lambda tx: insert_jobs(tx, [*new, other], []))

    async def buy_late(self) -> None:
        """Store a job whose id is older than others' that are stored: that of an Idempotency-Key, tried again."""
        job = self._job(self._late.pop(0))
        self.states[job.id] = JobState.QUEUED.value
        await self._database.run(lambda tx: insert_jobs(tx, [job], []))

    async def change(self, count: int, *states: JobState) -> None:
        """Move unfinished jobs on, each to one of *states*; an end is an event in the same command."""
        unfinished = [job_id for job_id, state in self.states.items() if state not in FINAL]
        chosen = self._random.sample(unfinished, min(count, len(unfinished)))
        moves = [(job_id, self._random.choice(states).value) for job_id in chosen]
        ends = [
            JobEnded(OWNER, 7, self.events + at, job_id, state, 0)
            for at, (job_id, state) in enumerate([move for move in moves if move[1] in FINAL], 1)
        ]
        self.events += len(ends)
        self.states |= dict(moves)

        def command(tx: Tx) -> None:
            for job_id, state in moves:
                tx.execute("UPDATE jobs SET state = ? WHERE id = ?", [state, job_id])
            insert_rows(tx, ends)

        await self._database.run(command)

    def newest(self, states: tuple[str, ...]) -> list[bytes]:
        """Return the ids in *states*, newest first."""
        return sorted([job_id for job_id, state in self.states.items() if not states or state in states], reverse=True)

    @staticmethod
    def _job(job_id: bytes) -> NewJob:
        return NewJob(job_id, OWNER, "test", "chat", "m", b"{}", Terms(10, 20, 1, 2, 50), True, 99, 7, NODE)


@pytest.fixture
async def database(make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    monkeypatch.setattr(readers, "REST_FACTOR", 0)
    async with make_database([*TABLES, EVENTS]) as opened:
        yield opened


async def check(jobs: Jobs, bought: Bought, *, limit: int = 3) -> None:
    """Compare pages at every place, by offset and by key, in every filter."""
    for states in FILTERS:
        ids = bought.newest(states)
        for offset in {0, 1, limit, len(ids) // 2, max(0, len(ids) - 2), len(ids), len(ids) + 9}:
            page = await jobs.lists.page(OWNER, states=states, limit=limit, offset=offset)
            assert (page.total, [row.id for row in page.rows]) == (len(ids), ids[offset : offset + limit]), (
                states,
                offset,
            )
        walked: list[bytes] = []
        before = None
        while True:
            page = await jobs.lists.page(OWNER, states=states, limit=limit, before=before)
            walked += [row.id for row in page.rows]
            before = page.next
            if before is None:
                break
        assert walked == ids


class TestPage:
    async def test_it_is_what_counting_gives_whatever_happened_since(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Places are kept after two steps already, so that most pages begin at one."""
        monkeypatch.setattr(lists, "PLACE_STEPS_MIN", 2)
        jobs, bought = Jobs(database), Bought(database, 1)
        await check(jobs, bought)
        for round_ in range(4):
            await bought.buy(9)
            await bought.change(5, JobState.RUNNING)
            await check(jobs, bought)
            await bought.change(8, *sorted(FINAL))
            if round_:
                await bought.buy_late()
            await check(jobs, bought)

    async def test_a_walk_by_key_sees_each_job_once_while_others_come(self, database: Database) -> None:
        jobs, bought = Jobs(database), Bought(database, 2)
        await bought.buy(10)
        then, before, walked = bought.newest(()), None, list[bytes]()

        for _ in range(4):
            page = await jobs.lists.page(OWNER, limit=3, before=before)
            walked += [row.id for row in page.rows]
            before = page.next
            await bought.buy(2)

        assert (walked, before) == (then, None)

    async def test_of_many_events_it_counts_again(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        jobs, bought = Jobs(database), Bought(database, 3)
        await bought.buy(8)
        await bought.change(2, JobState.COMPLETED)
        await check(jobs, bought)

        monkeypatch.setattr("comptoir.events.store.ENDED_MAX", 2)
        await bought.change(4, JobState.FAILED)
        await check(jobs, bought)

    async def test_when_events_were_deleted_it_counts_again(self, database: Database) -> None:
        jobs, bought = Jobs(database), Bought(database, 4)
        await bought.buy(8)
        await bought.change(2, JobState.COMPLETED)
        await check(jobs, bought)

        await bought.change(4, JobState.FAILED)
        await database.run(lambda tx: tx.execute("DELETE FROM events WHERE number < ?", [bought.events]))
        await check(jobs, bought)

    async def test_only_so_many_owners_totals_are_kept(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lists, "TOTALS_KEPT_MAX", 2)
        jobs = Jobs(database)
        for owner in (OWNER, OTHER, NODE, OTHER):
            await jobs.lists.page(owner)

        assert list(jobs.lists._totals) == [NODE, OTHER]


class TestCost:
    async def test_of_jobs_that_are_over_none_is_counted_twice(self, database: Database) -> None:
        """And no page skips rows: it looks for a key in the index, from whichever end is nearer."""
        jobs, bought = Jobs(database), Bought(database, 5)
        await bought.buy(12)
        await bought.change(9, *sorted(FINAL))
        asked: Counter[str] = Counter()
        await jobs.lists.page(OWNER)
        fetch_snapshot = database.fetch_snapshot

        async def counted(look, *, of):  # type: ignore[no-untyped-def]
            def noting(fetch):  # type: ignore[no-untyped-def]
                def note(sql: str, params: tuple[object, ...] = ()) -> object:
                    asked["count"] += "count(*)" in sql
                    asked["rows skipped"] += "OFFSET" in sql and not sql.startswith("SELECT id ")
                    steps = sql.rpartition("OFFSET ")[2]
                    asked["steps"] += int(steps) if steps.isdigit() else 0
                    return fetch(sql, params)

                return look(note)

            return await fetch_snapshot(noting, of=of)

        database.fetch_snapshot = counted  # type: ignore[method-assign, assignment]
        for offset in range(12):
            await jobs.lists.page(OWNER, limit=2, offset=offset)
        await Events(database).newest(OWNER)

        assert asked == {"count": 0, "rows skipped": 0, "steps": 1 + 2 + 3 + 4 + 5 + 5 + 4 + 3 + 2 + 1}
