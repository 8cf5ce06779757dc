"""Lists of an owner's chains: both databases answer from an index made for it, however many jobs are stored."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from comptoir.jobs import TABLES, Jobs, JobState, NewJob, insert_jobs
from comptoir.kinds import Terms
from comptoir.kit.db import Database, Tx
from comptoir.kit.ids import new_id
from tests.conftest import MakeDatabase

OWNER, OTHER, NODE = b"o" * 16, b"p" * 16, b"n" * 16
HERE, THERE = "192.0.2.1", "192.0.2.2"

BY_OWNER, BY_CALLER, UNFINISHED = (
    "ix_jobs_owner_id_id_partial",
    "ix_jobs_owner_id_caller_id_partial",
    "ix_jobs_id_partial",
)

LISTS = [
    # whose address is asked for, whether of those that are over, and the index that answers
    (None, None, BY_OWNER),
    (None, True, BY_OWNER),
    (None, False, UNFINISHED),
    (HERE, None, BY_CALLER),
    (HERE, True, BY_CALLER),
    (HERE, False, UNFINISHED),
]


class Asked:
    """Stands where a `Database` does, and keeps what is asked of it."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self.sql, self.params = "", list[Any]()

    async def fetch(self, sql: str, params: list[Any], *, of: bytes | None) -> list[Any]:
        """Keep it."""
        self.sql, self.params = sql, params
        return []


def make_chain(*, owner_id: bytes, caller: str | None) -> NewJob:
    return NewJob(
        new_id(), owner_id, "infernet", "container", "a", b"{}", Terms(0, 1, 0, 1, 1), True, 99, 7, NODE, None, caller
    )


@pytest.fixture
async def database(make_database: MakeDatabase) -> AsyncIterator[Database]:
    """A database that knows how its jobs are spread: the owner has a tenth of them, half are chains, 10 unfinished."""
    async with make_database(TABLES) as opened:
        callers = (HERE, THERE, None, None)
        for owner_id, count in ((OWNER, 400), (OTHER, 3_600)):
            some = [make_chain(owner_id=owner_id, caller=callers[at % 4]) for at in range(count)]
            await opened.run(lambda tx, some=some: insert_jobs(tx, some, []))
        over = "UPDATE jobs SET state = ? WHERE id NOT IN (SELECT id FROM jobs ORDER BY id DESC LIMIT 10)"
        await opened.run(lambda tx: tx.execute(over, [JobState.COMPLETED]))
        if opened.dialect == "postgresql":
            await opened.run(lambda tx: tx.execute("ANALYZE jobs"))
        yield opened


async def plan_of(database: Database, sql: str, params: list[Any]) -> str:
    def explain(tx: Tx) -> str:
        word = "EXPLAIN QUERY PLAN" if database.dialect == "sqlite" else "EXPLAIN"
        return "\n".join([str(row[-1]) for row in tx.fetch(f"{word} {sql}", params)])

    return await database.run(explain)


class TestChainIds:
    async def test_a_list_is_read_from_its_index_in_order(self, database: Database) -> None:
        """Nothing is sorted and no row is looked at that is not listed, but unfinished ones of others, which are
        few."""
        for caller, over, index in LISTS:
            asked = Asked(database.dialect)

            await Jobs(asked).staged_job_ids(owner_id=OWNER, caller=caller, over=over, limit=100, before=None)  # type: ignore[arg-type]
            plan = await plan_of(database, asked.sql, asked.params)

            assert index in plan, (caller, over, plan)
            assert not [word for word in ("Seq Scan", "SCAN jobs", "Sort", "TEMP B-TREE") if word in plan], plan
            assert "LIMIT 100" in asked.sql

    async def test_the_next_page_begins_behind_the_last(self, database: Database) -> None:
        jobs = Jobs(database)

        first = await jobs.staged_job_ids(owner_id=OWNER, caller=HERE, over=None, limit=80, before=None)
        second = await jobs.staged_job_ids(owner_id=OWNER, caller=HERE, over=None, limit=80, before=first[-1])

        assert (len(first), len(second)) == (80, 20)
        assert first + second == sorted({*first, *second}, reverse=True)
