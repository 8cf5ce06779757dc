"""Invitations over both databases: whom they let in, how often, and until when."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from comptoir.identity import (
    TABLES,
    Identity,
    Invitation,
    InvitationRefused,
    InvitedAs,
    UnknownInvitation,
    use_invitation,
)
from comptoir.identity.testing import make_identity
from comptoir.kit.clock import FakeClock
from comptoir.kit.db import Database, open_database
from comptoir.kit.errors import InvalidField
from tests.conftest import MakeDatabase

OPERATOR = b"O" * 16
DAY_MS = 24 * 3600 * 1000


@pytest.fixture
async def database(make_database: MakeDatabase) -> AsyncIterator[Database]:
    async with make_database(TABLES) as opened:
        yield opened


@pytest.fixture
async def identity(database: Database, clock: FakeClock) -> AsyncIterator[Identity]:
    room = make_identity(database, clock)
    yield room
    room.close()


async def make(identity: Identity, *, uses: int = 1, days: int = 7, as_: InvitedAs = InvitedAs.HOST) -> str:
    return (await identity.invitations.make(invited_as=as_, uses=uses, days=days, made_by=OPERATOR)).text


async def use(database: Database, text: str, clock: FakeClock, as_: InvitedAs = InvitedAs.HOST) -> Invitation:
    return await database.run(lambda tx: use_invitation(tx, text, as_, clock.now_ms()))


class TestUse:
    async def test_each_use_counts_and_no_more_than_said(
        self, identity: Identity, database: Database, clock: FakeClock
    ) -> None:
        text = await make(identity, uses=2)

        assert [(await use(database, text, clock)).uses for _ in range(2)] == [1, 2]
        with pytest.raises(InvitationRefused, match="used up"):
            await use(database, text, clock)

    async def test_the_last_ones_serve_as_many_over_several_coordinators(
        self, identity: Identity, database: Database, database_address: str, clock: FakeClock
    ) -> None:
        """On PostgreSQL two coordinators write at once; on SQLite there is one writer, whose commands share commits."""
        text = await make(identity, uses=3)
        other = open_database(database_address) if database.dialect == "postgresql" else database
        try:
            tries = [use(each, text, clock) for _ in range(10) for each in (database, other)]
            outcomes = await asyncio.gather(*tries, return_exceptions=True)
        finally:
            await other.close()

        assert sorted(one.uses for one in outcomes if isinstance(one, Invitation)) == [1, 2, 3]
        assert sum(isinstance(one, InvitationRefused) for one in outcomes) == 17

    @pytest.mark.parametrize(
        ("what", "words"),
        [
            ("unknown", "not known here"),
            ("expired", "expired"),
            ("revoked", "revoked"),
            ("for users", "for a user, not for a host"),
            ("cut short", "not known here"),
            ("too long", "not known here"),
        ],
    )
    async def test_one_that_is_not_good_says_why_and_counts_nothing(
        self, identity: Identity, database: Database, clock: FakeClock, what: str, words: str
    ) -> None:
        text = await make(identity, as_=InvitedAs.USER if what == "for users" else InvitedAs.HOST)
        (stored,) = await identity.invitations.newest()
        if what == "expired":
            clock.advance(seconds=7 * DAY_MS / 1000)
        if what == "revoked":
            await identity.invitations.revoke(stored.id)
        given = {"unknown": "inv_" + "x" * 32, "cut short": text[:-1], "too long": text + "x" * 100}.get(what, text)

        with pytest.raises(InvitationRefused, match=words):
            await use(database, given, clock)
        with pytest.raises(InvitationRefused, match=words):
            await identity.invitations.check(given, InvitedAs.HOST)

        assert (await identity.invitations.get(stored.id)).uses == 0

    async def test_a_command_that_is_refused_later_uses_nothing(
        self, identity: Identity, database: Database, clock: FakeClock
    ) -> None:
        text = await make(identity)

        def command(tx: object) -> None:
            use_invitation(tx, text, InvitedAs.HOST, clock.now_ms())  # type: ignore[arg-type]
            raise InvalidField("gpu", "for the test")

        with pytest.raises(InvalidField):
            await database.run(command)

        assert (await identity.invitations.check(text, InvitedAs.HOST)).uses == 0


class TestMake:
    async def test_the_text_is_kept_nowhere(self, identity: Identity, database: Database) -> None:
        text = await make(identity)

        (row,) = await database.fetch("SELECT * FROM invitations")
        assert len(text) == 36 and all(text.encode() not in str(value).encode() for value in row)
        assert await make(identity) != text

    async def test_the_same_id_makes_one(self, identity: Identity) -> None:
        made = [
            await identity.invitations.make(
                invited_as=InvitedAs.USER, uses=1, days=1, made_by=OPERATOR, invitation_id=b"I" * 16, secret=b"s" * 32
            )
            for _ in range(2)
        ]
        again = await identity.invitations.made_from(b"s" * 32)

        assert again is not None and {one.text for one in [*made, again]} == {made[0].text}
        assert len(await identity.invitations.newest()) == 1

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"uses": 0}, "uses"),
            ({"uses": 1_000_001}, "uses"),
            ({"days": 0}, "days"),
            ({"days": 3_651}, "days"),
            ({"note": "x" * 201}, "note"),
            ({"credit_uusd": 1}, "credits"),
        ],
    )
    async def test_bounds(self, identity: Identity, fields: dict[str, object], field: str) -> None:
        given = {"invited_as": InvitedAs.HOST, "uses": 1, "days": 1, "made_by": OPERATOR} | fields

        with pytest.raises(InvalidField) as refused:
            await identity.invitations.make(**given)  # type: ignore[arg-type]

        assert refused.value.field == field
        assert await identity.invitations.newest() == []


class TestListAndRevoke:
    async def test_pages_are_newest_first(self, identity: Identity) -> None:
        for _ in range(3):
            await make(identity)

        first = await identity.invitations.newest(limit=2)
        rest = await identity.invitations.newest(limit=2, before=first[-1].id)

        ids = [one.id for one in [*first, *rest]]
        assert ids == sorted(ids, reverse=True) and len(ids) == 3

    async def test_revoking_again_keeps_the_first_moment(self, identity: Identity, clock: FakeClock) -> None:
        await make(identity)
        (stored,) = await identity.invitations.newest()

        first = await identity.invitations.revoke(stored.id)
        clock.advance(seconds=5)

        assert (await identity.invitations.revoke(stored.id)).revoked_ms == first.revoked_ms
        with pytest.raises(UnknownInvitation):
            await identity.invitations.revoke(b"?" * 16)
