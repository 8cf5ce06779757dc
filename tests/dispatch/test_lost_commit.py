"""PostgreSQL's connection breaks around the COMMIT of each verb of a job's life: it happens once, and its caller hears
so."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comptoir.dispatch import assign
from comptoir.dispatch.assign import revoke_lease
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.onboard import add_user
from comptoir.jobs import Fault, JobState
from comptoir.kit.db import postgres
from comptoir.reports import audit
from tests.kit.cutting import CuttingStore
from tests.street import SIGNUP_UUSD, Street, finish_well, open_street

SIDES = pytest.mark.parametrize("side", ["before", "after"])


@pytest.fixture
async def street(tmp_path: Path, postgres_address: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Street]:
    monkeypatch.setattr(postgres, "PostgresStore", CuttingStore)
    async with open_street(tmp_path, database=postgres_address) as opened:
        yield opened


def cut_next(street: Street, side: str) -> None:
    """Break the connection around the next COMMIT."""
    setattr(street.core.db._store, side, True)


@SIDES
class TestLostCommit:
    async def test_submit(self, street: Street, side: str) -> None:
        _, line = await street.host()
        cut_next(street, side)

        job = await street.submit()

        assert [sent for sent, _ in line.sent] == [job]
        assert await street.free_uusd() == SIGNUP_UUSD - job.terms.hold_uusd
        assert await audit(street.core.db) == []

    async def test_start(self, street: Street, side: str) -> None:
        _, line = await street.host()
        first, second = await street.submit(), await street.submit()
        await cancel(street.core, first)
        cut_next(street, side)
        await street.core.background.drain_tasks()

        assert [sent for sent, _ in line.sent] == [first, second]
        assert (second.state, second.lease is not None) == (JobState.RUNNING, True)
        assert await audit(street.core.db) == []

    async def test_settle(self, street: Street, side: str) -> None:
        _, line = await street.host()
        job = await street.submit()
        cut_next(street, side)

        await finish_well(street.core, job)

        assert [earned for _, _, earned in line.closed] == [441]
        assert await street.free_uusd() == SIGNUP_UUSD - 501
        ((transfers,),) = await street.core.db.fetch("SELECT count(*) FROM transfers WHERE job_id IS NOT NULL")
        assert transfers == 2
        assert await audit(street.core.db) == []

    async def test_requeue(self, street: Street, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(assign, "SAME_HOST_AGAIN_S", 0.0)
        await street.host()
        await street.host()
        job = await street.submit()
        assert job.lease is not None
        cut_next(street, side)

        await revoke_lease(street.core, job, job.lease, "it broke", fault=Fault.HOST)
        await finish_well(street.core, job)

        assert job.state == JobState.COMPLETED
        assert await audit(street.core.db) == []

    async def test_deposit_and_a_new_user(self, street: Street, side: str) -> None:
        """Plain commands that could not be run twice."""
        cut_next(street, side)
        await street.core.ledger.deposit(owner_id=street.buyer_id, amount_uusd=77)
        cut_next(street, side)
        made = await add_user(street.core, username="bob", email=None, password=None)

        assert await street.free_uusd() == SIGNUP_UUSD + 77
        assert (await street.core.ledger.account(made.user.id)).balance_uusd == SIGNUP_UUSD
        assert await audit(street.core.db) == []
