"""Webhooks on both databases: stored with sealed secrets, limited per owner, moved under their lock; and messages that
are always the same bytes."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from nacl.utils import random as random_bytes

from comptoir.events import NUMBERED, CreditAdded, HostChanged, JobAccepted, JobAssigned, JobEnded, WebhookPaused
from comptoir.kit.clock import FakeClock
from comptoir.kit.db import Database
from comptoir.kit.sealing import Seal, SealBroken
from comptoir.kit.signing import SigningKey
from comptoir.webhooks import (
    TABLES,
    NewWebhook,
    TooManyWebhooks,
    UnknownWebhook,
    Webhooks,
    WebhookState,
    body_of,
    event_types,
    message,
    secret_text,
    signature,
)
from tests.conftest import MakeDatabase

ANN, BOB, HOOK = b"a" * 16, b"b" * 16, b"w" * 16


@pytest.fixture
async def database(make_database: MakeDatabase) -> AsyncIterator[Database]:
    async with make_database(TABLES) as opened:
        yield opened


@pytest.fixture
def webhooks(database: Database, clock: FakeClock) -> Webhooks:
    return Webhooks(database, clock, Seal(bytes(32)))


async def add(
    database: Database, webhooks: Webhooks, webhook_id: bytes = HOOK, *, owner_id: bytes = ANN, most: int = 16,
    **fields: Any,
) -> NewWebhook:  # fmt: skip
    new, sealed = webhooks.draft(webhook_id=webhook_id, owner_id=owner_id, url="https://a.example/", **fields)
    stored = await database.run(lambda tx: Webhooks.insert(tx, new.webhook, sealed, cursor=7, most=most))
    return NewWebhook(stored, new.secret)


class TestStored:
    async def test_what_was_made_is_read(self, database: Database, webhooks: Webhooks) -> None:
        made = await add(database, webhooks, types=("money.added", "job.ended"), note="n", parallel=3)

        assert await webhooks.get(HOOK, owner_id=ANN) == made.webhook
        assert (await webhooks.of_owner(ANN), await webhooks.of_owner(BOB)) == ([made.webhook], [])
        assert (made.webhook.types, made.webhook.cursor) == (("money.added", "job.ended"), 7)
        with pytest.raises(UnknownWebhook):
            await webhooks.get(HOOK, owner_id=BOB)

    async def test_a_secret_is_nowhere_in_clear(self, database: Database, webhooks: Webhooks) -> None:
        """Whoever has a copy of the database alone can't sign."""
        secret = random_bytes(32)
        await add(database, webhooks, secret=secret)
        ((row,),) = await database.fetch("SELECT secret FROM webhooks")

        assert secret not in bytes(row)
        assert await webhooks.secrets(HOOK) == [secret]
        with pytest.raises(SealBroken):
            await Webhooks(database, FakeClock(), Seal(b"k" * 32)).secrets(HOOK)

    async def test_made_twice_it_is_one(self, database: Database, webhooks: Webhooks) -> None:
        first = await add(database, webhooks, secret=bytes(32), most=1)
        again = await add(database, webhooks, secret=bytes(32), most=1)

        assert first == again
        with pytest.raises(TooManyWebhooks):
            await add(database, webhooks, b"x" * 16, most=1)
        assert (await add(database, webhooks, b"x" * 16, owner_id=BOB, most=1)).webhook.owner_id == BOB

    async def test_anothers_gets_no_new_secret(self, database: Database, webhooks: Webhooks) -> None:
        made = await add(database, webhooks)
        with pytest.raises(UnknownWebhook):
            await webhooks.rotate(HOOK, owner_id=BOB)

        assert [secret_text(one) for one in await webhooks.secrets(HOOK)] == [made.secret]

    async def test_pages_of_the_active(
        self, database: Database, webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("comptoir.webhooks.service.PAGES_OF", 2)
        ids = [bytes([number]) * 16 for number in range(4)]
        for webhook_id in ids:
            await add(database, webhooks, webhook_id)
        await database.run(lambda tx: Webhooks.set_state(tx, ids[1], WebhookState.PAUSED, why="x"))

        assert [one.id for one in await webhooks.active(b"")] == [ids[0], ids[2]]
        assert [one.id for one in await webhooks.active(ids[2])] == [ids[3]]

    async def test_since_when_it_fails_is_the_first_time(self, database: Database, webhooks: Webhooks) -> None:
        await add(database, webhooks)

        async def note(done: bool, at_ms: int) -> int | None:
            webhook = await webhooks.get(HOOK, owner_id=ANN)
            await database.run(lambda tx: Webhooks.note_attempt(tx, webhook, done=done, at_ms=at_ms))
            return (await webhooks.get(HOOK, owner_id=ANN)).failing_since_ms

        assert [await note(*each) for each in ((False, 5), (False, 6), (True, 7), (True, 8), (False, 9))] == [
            5, 5, None, None, 9,
        ]  # fmt: skip


class TestMessage:
    EVENTS = (
        JobEnded(ANN, 1_764_590_000_007, 3, b"j" * 16, "failed", 12, "upstream_error"),
        CreditAdded(ANN, 1_764_590_000_000, 4, b"t" * 16, 10**15, "deposit"),
        WebhookPaused(ANN, 0, 5, HOOK, "it answered 410 Gone"),
        JobAccepted(ANN, 0, 6, b"j" * 16, "m"),
        JobAssigned(ANN, 0, 7, b"j" * 16, b"l" * 16, b"h" * 16),
        HostChanged(ANN, 0, 8, b"h" * 16, "offline"),
    )

    def test_every_numbered_event_has_one(self) -> None:
        """Otherwise a webhook would stop at it."""
        assert set(message.FACTS) == set(NUMBERED) == {type(event) for event in self.EVENTS}
        assert event_types() == (
            "job.ended", "money.added", "webhook.paused", "job.accepted", "job.assigned", "host.changed",
        )  # fmt: skip

    def test_it_is_said_word_for_word(self) -> None:
        """A replay must be the same bytes, whatever version makes it."""
        assert [body_of(event) for event in self.EVENTS] == [
            b'{"type":"job.ended","timestamp":"2025-12-01T11:53:20.007Z","number":3,"data":{'
            b'"job":"job_6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a","receipt":"rcpt_6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a",'
            b'"state":"failed","cost_uusd":12,"error_code":"upstream_error"}}',
            b'{"type":"money.added","timestamp":"2025-12-01T11:53:20.000Z","number":4,"data":{'
            b'"transfer":"74747474747474747474747474747474","amount_uusd":1000000000000000,"kind":"deposit"}}',
            b'{"type":"webhook.paused","timestamp":"1970-01-01T00:00:00.000Z","number":5,"data":{'
            b'"webhook":"webhook_77777777777777777777777777777777","why":"it answered 410 Gone"}}',
            b'{"type":"job.accepted","timestamp":"1970-01-01T00:00:00.000Z","number":6,"data":{'
            b'"job":"job_6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a","model":"m"}}',
            b'{"type":"job.assigned","timestamp":"1970-01-01T00:00:00.000Z","number":7,"data":{'
            b'"job":"job_6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a","attempt":"att_6c6c6c6c6c6c6c6c6c6c6c6c6c6c6c6c",'
            b'"host":"host_68686868686868686868686868686868"}}',
            b'{"type":"host.changed","timestamp":"1970-01-01T00:00:00.000Z","number":8,"data":{'
            b'"host":"host_68686868686868686868686868686868","status":"offline"}}',
        ]
        assert all(msgspec.json.decode(body_of(event)) for event in self.EVENTS)


class TestSigning:
    def test_the_specifications_own_example(self) -> None:
        """Of the Standard Webhooks repository's README and libraries."""
        secret = b"1\xf2\x90\xf6\xbf\x06)\x8a\xabO\x08\xd4<?\x08,\xf6H\xa3b\xda-\xa4\xb0"
        body = b'{"test": 2432232314}'

        signed = signature(secret, message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", at_s=1_614_265_330, body=body)

        assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

    def test_a_key_derives_one_secret_for_each_purpose(self) -> None:
        key = SigningKey(bytes(32))

        assert key.derive(b"a") == SigningKey(bytes(32)).derive(b"a") != key.derive(b"b")
        assert len(key.derive(b"a")) == 32 and key.derive(b"a") != key.seed()
