"""The record of acts, on both databases: numbered without gaps, only added to, and read by number."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest

from comptoir.kit.db import Database, Tx, open_database
from comptoir.kit.ids import new_id, public
from comptoir.moderation import (
    COORDINATOR,
    TABLES,
    Act,
    Author,
    Decision,
    HostExpired,
    HostRetired,
    Moderation,
    Verb,
    lock,
    record,
)
from tests.conftest import MakeDatabase

HOST, OTHER, USER = b"h" * 16, b"g" * 16, b"u" * 16
ROOT = Author(b"o" * 16, "root")


@pytest.fixture
async def database(make_database: MakeDatabase) -> AsyncIterator[Database]:
    async with make_database(TABLES) as opened:
        yield opened


def command(one: Decision, tx: Tx) -> Act:
    lock(tx)
    return record(tx, one)


async def add(db: Database, verb: Verb, subject: str, *, author: Author = ROOT, at_ms: int = 7) -> Act:
    """Record an act."""
    return await db.run(partial(command, Decision(new_id(), author, verb, subject, f"because of {subject}", at_ms)))


class TestRecord:
    async def test_writers_at_the_same_moment_leave_no_gap(self, database: Database, database_address: str) -> None:
        """Whoever has read up to a number must not miss one below it that is committed later."""
        others = [open_database(database_address) for _ in range(2)]
        try:
            acts = await asyncio.gather(
                *(add(db, Verb.MODEL_QUARANTINE, f"m{n}") for n in range(8) for db in (database, *others))
            )
        finally:
            for other in others:
                await other.close()

        assert sorted(act.number for act in acts) == list(range(1, 25))

    async def test_pages_are_newest_first_and_hold_what_was_said(self, database: Database) -> None:
        first, second, third = [await add(database, Verb.MODEL_QUARANTINE, name) for name in "abc"]
        room = Moderation(database)

        assert await room.page(limit=2) == [third, second]
        assert await room.page(limit=2, before=second.number) == [first]
        assert await room.find(second.id) == second and await room.find(b"?" * 16) is None
        assert (first.operator_id, first.operator, first.reason, first.at_ms) == (*ROOT, "because of a", 7)


class TestInForce:
    @pytest.mark.parametrize("after_start", [False, True])
    async def test_the_newest_act_about_a_subject_decides(self, database: Database, after_start: bool) -> None:
        """The same after a start, which reads what is in force, as for whoever follows act by act."""
        host, other, user = public("host", HOST), public("host", OTHER), public("usr", USER)
        room = Moderation(database)
        for verb, subject in (
            (Verb.HOST_SUSPEND, host),
            (Verb.HOST_SUSPEND, other),
            (Verb.HOST_RESUME, host),
            (Verb.HOST_RETIRE, other),
            (Verb.USER_SUSPEND, user),
            (Verb.MODEL_QUARANTINE, "m"),
            (Verb.MODEL_QUARANTINE, host),
            (Verb.MODEL_QUARANTINE, "n"),
            (Verb.MODEL_RELEASE, "n"),
        ):
            await add(database, verb, subject)
            if not after_start:
                assert len(await room.read_new()) == 1
        if after_start:
            await room.load()
            assert await room.read_new() == []

        assert room.read_to == 9
        assert list(room.suspended) == [user] and set(room.quarantined) == {"m", host}
        assert [room.against_host(each, None) for each in (HOST, OTHER)] == [None, None]
        owned, banned, named = room.against_host(HOST, USER), room.against_user(USER), room.against_model("m")
        assert owned is not None and banned is not None and named is not None and room.against_model("n") is None
        for refusal, number, about in ((owned, 5, user), (banned, 5, user), (named, 6, "m")):
            assert (refusal.number, refusal.reason) == (number, f"because of {about}")
            assert f"because of {about} (act {number})" in refusal.message

    async def test_a_retired_host_is_told_by_whom(self, database: Database) -> None:
        room = Moderation(database)
        await add(database, Verb.HOST_RETIRE, public("host", HOST))
        await add(database, Verb.HOST_RETIRE, public("host", OTHER), author=COORDINATOR)

        told = [await room.why_retired(each) for each in (HOST, OTHER, b"?" * 16)]

        assert [type(one) for one in told] == [HostRetired, HostExpired, type(None)]

    async def test_who_was_lifted_lately_is_known(self, database: Database) -> None:
        room = Moderation(database)
        for subject, at_ms in (("a", 10), ("b", 20)):
            await add(database, Verb.HOST_RESUME, subject, at_ms=at_ms)

        assert await room.lifted_since([*"abc", *(str(n) for n in range(500))], 15) == {"b"}
