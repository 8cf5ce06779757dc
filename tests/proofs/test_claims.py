"""A job is claimed once, though two coordinators ask at the same moment on one PostgreSQL."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir.dispatch.assign import start_verb
from comptoir.dispatch.core import CommandOrder
from comptoir.dispatch.settle import Ending, SettleResult, _item, settle_verb
from comptoir.jobs import JobFinished, JobMoved, JobRow, Jobs, JobState, Start
from comptoir.jobs.store import claim_rows
from comptoir.kit.db import Database, Tx, open_database
from comptoir.kit.ids import new_id
from comptoir.receipts import Receipt, ReceiptFacts, Receipts
from comptoir.reports import audit
from tests.machines import Gate
from tests.street import Street, open_street

JOBS = 120
"""Jobs that wait, in all."""

GROUP = 6
"""Jobs of one race: few, so that many races are run."""


STILL_S = 20.0
"""A bound against hanging."""

NOTICED_S = 0.5
"""How long a take-over that should not wait may take before it is let wait."""


@pytest.fixture
async def street(tmp_path: Path, postgres_address: str) -> AsyncIterator[Street]:
    async with open_street(tmp_path, database=postgres_address) as opened:
        yield opened


@pytest.fixture
async def databases(street: Street, postgres_address: str) -> AsyncIterator[list[Database]]:
    """Two coordinators' connections."""
    other = open_database(postgres_address)
    yield [street.core.db, other]
    await other.close()


async def waiting_jobs(street: Street) -> tuple[bytes, list[bytes]]:
    """Have jobs wait for a host that is away; return it and them."""
    host_id, _ = await street.host()
    street.unlink(host_id)
    jobs = await asyncio.gather(*(street.submit(max_tokens=1) for _ in range(JOBS)))
    return host_id, [job.id for job in jobs]


async def race(databases: Sequence[Database], asks: Sequence[Any]) -> list[list[Any]]:
    """Hold both writers, hand each its commands, let both go; return the outcomes."""
    gates = [Gate(database) for database in databases]
    for gate in gates:
        await gate.entered()
    put = [ask(database) for database, ask in zip(databases, asks, strict=True)]
    await asyncio.sleep(0)  # What is asked by a task of its own is with the writer now.
    for gate in gates:
        gate.open()
    return [await asyncio.gather(*futures, return_exceptions=True) for futures in put]


class Standstill:
    """A point in the writer thread that stands still until the test lets it go on."""

    def __init__(self) -> None:
        self._entered, self._released = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self._entered.set()
        assert self._released.wait(STILL_S), "nobody let it go on"

    async def entered(self) -> None:
        while not self._entered.is_set():
            await asyncio.sleep(0.001)

    def release(self) -> None:
        self._released.set()


class StandingReceipts:
    """Receipts whose making stands still: what a verb decides on was read by then, and nothing is written yet."""

    def __init__(self, receipts: Receipts, still: Standstill) -> None:
        self._receipts, self._still = receipts, still

    def build(self, facts: ReceiptFacts) -> Receipt:
        self._still()
        return self._receipts.build(facts)


class TestStandstill:
    """One of the two stands still between its look and its commit, the other one comes: no race has to be won."""

    async def test_what_is_being_ended_is_not_taken_over(self, street: Street, databases: list[Database]) -> None:
        await street.host()
        job, still = await street.submit(), Standstill()
        item = _item(street.core, job, job.lease, Ending(JobState.CANCELLED))
        item = msgspec.structs.replace(item, receipts=StandingReceipts(street.core.receipts, still))

        ending = databases[0].batch(settle_verb, item, turn=CommandOrder.SETTLE)
        await still.entered()
        try:
            taken = await Jobs(databases[1]).claim_orphans(node_id=new_id(), of=[street.core.node_id])
        finally:
            still.release()

        assert taken == []
        assert isinstance(await ending, SettleResult)
        assert await audit(street.core.db) == []

    async def test_what_is_being_taken_over_is_passed_by(self, street: Street, databases: list[Database]) -> None:
        await waiting_jobs(street)
        still, nodes, dead = Standstill(), [new_id(), new_id()], street.core.node_id

        def slowly(tx: Tx) -> list[JobRow]:
            rows = claim_rows(tx, node_id=nodes[0], of=[dead], limit=GROUP)
            still()
            return rows

        first = databases[0].run(slowly)
        await still.entered()
        second = asyncio.ensure_future(Jobs(databases[1]).claim_orphans(node_id=nodes[1], of=[dead], limit=GROUP))
        # One that took no notice of the first would now wait for its commit, and then take the same jobs.
        await asyncio.wait([second], timeout=NOTICED_S)
        still.release()

        taken = [{row.id for row in rows} for rows in (await first, await second)]
        assert [len(each) for each in taken] == [GROUP, GROUP]
        assert not taken[0] & taken[1]


class TestClaims:
    async def test_a_waiting_job_is_leased_by_one_of_two(self, street: Street, databases: list[Database]) -> None:
        host_id, jobs = await waiting_jobs(street)
        owner, nodes = street.core.node_id, [street.core.node_id, new_id()]

        for first in range(0, JOBS, GROUP):
            group = jobs[first : first + GROUP]

            def starts(node_id: bytes, ids: Sequence[bytes] = group) -> Any:
                return lambda database: [
                    database.batch(start_verb, Start(job_id, new_id(), host_id, 0, 1, 1, node_id, owner, 1, 1))
                    for job_id in ids
                ]

            left, right = await race(databases, [starts(node) for node in nodes])
            for outcomes in zip(left, right, strict=True):
                assert sorted(outcome is None for outcome in outcomes) == [False, True], outcomes
                assert any(isinstance(outcome, JobFinished | JobMoved) for outcome in outcomes), outcomes

        sql = "SELECT count(*), count(DISTINCT job_id) FROM attempts"
        assert await street.core.db.fetch(sql) == [(JOBS, JOBS)]
        assert await audit(street.core.db) == []

    async def test_a_job_of_a_dead_coordinator_is_taken_over_by_one_of_two(
        self, street: Street, databases: list[Database]
    ) -> None:
        _, jobs = await waiting_jobs(street)
        dead, nodes = street.core.node_id, [new_id(), new_id()]
        taken: list[tuple[bytes, bytes]] = []

        while True:
            asks = [
                lambda database, node=node: [
                    asyncio.ensure_future(Jobs(database).claim_orphans(node_id=node, of=[dead], limit=GROUP))
                ]
                for node in nodes
            ]
            got = [rows for (rows,) in await race(databases, asks)]
            taken += [(row.id, node) for node, rows in zip(nodes, got, strict=True) for row in rows]
            if not any(got):
                break

        assert sorted(job_id for job_id, _ in taken) == sorted(jobs), "taken twice, or not at all"
        stored = await street.core.db.fetch("SELECT id, node_id FROM jobs")
        assert sorted(stored) == sorted(taken)

    async def test_an_end_and_a_take_over_of_one_job_do_not_both_happen(
        self, street: Street, databases: list[Database]
    ) -> None:
        """The coordinator that is taken for dead wakes up and ends its jobs while they are taken from it."""
        await street.host(slots=JOBS)
        jobs = await asyncio.gather(*(street.submit(max_tokens=1) for _ in range(JOBS)))
        dead, heir = street.core.node_id, new_id()
        taken: set[bytes] = set()

        for first in range(0, JOBS, GROUP):
            group = jobs[first : first + GROUP]
            items = [_item(street.core, job, job.lease, Ending(JobState.CANCELLED)) for job in group]
            asks = [
                lambda database, items=items: [
                    database.batch(settle_verb, item, turn=CommandOrder.SETTLE) for item in items
                ],
                lambda database: [
                    asyncio.ensure_future(Jobs(database).claim_orphans(node_id=heir, of=[dead], limit=GROUP))
                ],
            ]
            outcomes, (rows,) = await race(databases, asks)
            taken |= {row.id for row in rows}  # Of later races too: rows that are being ended are passed over.
            for job, outcome in zip(group, outcomes, strict=True):
                assert isinstance(outcome, JobMoved if job.id in taken else SettleResult), outcome

        sql = "SELECT count(*) FROM jobs WHERE state = 'cancelled'"
        assert await street.core.db.fetch(sql) == [(JOBS - len(taken),)]
        assert await audit(street.core.db) == []
