"""What a coordinator must go on doing: whatever of it fails is said, tried again, and holds up nothing else."""

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from comptoir.dispatch import Core, expire, moderate
from comptoir.dispatch.deferred_settlements import DeferredSettlements
from comptoir.dispatch.duties import Duties, Duty
from comptoir.dispatch.health import is_healthy, read_health
from comptoir.dispatch.lost_commits import LostCommits
from comptoir.kit.db import RECORDS_NAME
from comptoir.kit.db.record_file import records_in
from comptoir.kit.errors import Unavailable
from comptoir.moderation import Verb
from tests.dispatch.acting import on_model
from tests.street import Street, open_street


def failing(core: Core) -> list[Duty]:
    return list(core.state(Duties).failing)


async def full_too(*_: object) -> None:
    raise Unavailable("the database refused a write")


class TestRecord:
    async def test_a_disk_that_is_full_is_unhealthy_until_the_record_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is confirmed for that: the record has to be written again although nothing new comes."""
        async with open_street(tmp_path) as street:
            core, lost = street.core, street.core.state(LostCommits)
            with monkeypatch.context() as full:
                full.setattr("os.pwrite", lambda file, data, at: 3)
                await core.ledger.deposit(owner_id=street.buyer_id, amount_uusd=1)
                with monkeypatch.context() as away:
                    away.setattr(core.db, "run", full_too)
                    await lost.look_after_files()
                assert failing(core) == [Duty.RECORD], "also where the database has no room either"
                await lost.look_after_files()

                assert (await read_health(core))["record"].words == (
                    "the commit record is not kept (No space left on device)"
                )
                assert not await is_healthy(core)
            await lost.look_after_files()

            assert await is_healthy(core) and lost.signed_head
            head = lost._record.head
        (seen,) = records_in(tmp_path / "data" / RECORDS_NAME)
        assert seen.head == head

    async def test_a_disk_that_keeps_nothing_is_unhealthy_and_no_head_is_signed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with open_street(tmp_path) as street:
            core, lost = street.core, street.core.state(LostCommits)
            before = lost.signed_head
            await core.ledger.deposit(owner_id=street.buyer_id, amount_uusd=1)

            def refuse(file: int) -> None:
                raise OSError(errno.EIO, os.strerror(errno.EIO), "/secret/place")

            with monkeypatch.context() as broken:
                broken.setattr("os.fdatasync", refuse)
                for _ in range(3):
                    await lost.look_after_files()
                assert core.state(Duties).failing == {Duty.RECORD: "the commit record is not kept (Input/output error)"}
                assert lost.signed_head == before
            await lost.look_after_files()

            assert failing(core) == [] and lost.signed_head != before
        assert caplog.text.count("can't be made safe") == 1, "said once, not every second"


@asynccontextmanager
async def sweeping(core: Core) -> AsyncIterator[None]:
    task = asyncio.create_task(expire.sweep_forever(core))
    try:
        yield
    finally:
        task.cancel()


async def until(true: object) -> None:
    assert callable(true)
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0)


class TestSweep:
    async def test_a_step_that_fails_is_named_and_holds_up_no_other(
        self, street: Street, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        taken, broken = list[str](), True

        async def breaks(core: Core) -> None:
            if broken:
                raise ValueError("planted")

        async def works(core: Core) -> None:
            taken.append("works")

        monkeypatch.setattr(expire, "SWEEP_S", 0)
        monkeypatch.setattr(expire, "STEPS", (("bonds", 3, breaks), ("files", 1, works)))
        caplog.set_level(logging.CRITICAL)
        async with sweeping(street.core):
            await until(lambda: len(taken) > 8)

            assert street.core.state(Duties).failing == {
                Duty.SWEEP: "deadlines and silent hosts are not looked after (bonds)"
            }
            broken = False
            await until(lambda: not failing(street.core))

    def test_every_step_is_named_once(self) -> None:
        assert len({name for name, _, _ in expire.STEPS}) == len(expire.STEPS)


class TestOnce:
    async def test_an_act_that_is_not_in_force_is_said_until_a_restart(
        self, street: Street, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def breaks(core: Core, act: object) -> None:
            raise ValueError("planted")

        monkeypatch.setattr(moderate, "_enforce", breaks)
        caplog.set_level(logging.CRITICAL)
        await on_model(street.core, Verb.MODEL_QUARANTINE, "m")

        assert failing(street.core) == [Duty.ACTS]

    async def test_an_end_that_could_not_be_written_is_said_until_a_restart(
        self, street: Street, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def breaks() -> None:
            raise ValueError("planted")

        caplog.set_level(logging.CRITICAL)
        deferred = street.core.state(DeferredSettlements)
        assert deferred.defer(b"j" * 16, breaks)
        await until(lambda: not len(deferred))

        assert failing(street.core) == [Duty.ENDS]
