"""Identity over both databases: people, keys, credentials, and how fast a revoked key ends."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator

import pytest

from comptoir.events import EventHub, KeysRevoked
from comptoir.identity import (
    KEY_CACHE_S,
    TABLES,
    Anonymous,
    Credentials,
    EmailTaken,
    Identity,
    NewUser,
    OwnerKind,
    Principal,
    Role,
    UnknownAccessKey,
    UnknownUser,
    UsernameTaken,
)
from comptoir.identity.testing import IP, basic, bearer, make_identity
from comptoir.kit.clock import FakeClock
from comptoir.kit.db import Database, Tx
from comptoir.kit.errors import InvalidField, NotAllowed, NotAuthenticated, TooManyRequests
from tests.conftest import MakeDatabase

PASSWORD = "correct horse battery"
HOST_ID = b"H" * 16


@pytest.fixture
async def database(make_database: MakeDatabase) -> AsyncIterator[Database]:
    async with make_database(TABLES) as opened:
        yield opened


@pytest.fixture
def events() -> EventHub:
    return EventHub()


@pytest.fixture
async def identity(database: Database, clock: FakeClock, events: EventHub) -> AsyncIterator[Identity]:
    room = make_identity(database, clock, events=events)
    yield room
    room.close()


async def make_user(identity: Identity, username: str = "ann", *, role: Role = Role.BUYER) -> NewUser:
    return await identity.create_user(
        username=username, email=f"{username}@example.org", password=PASSWORD, role=role, with_key=True
    )


def secret_of(new: NewUser) -> str:
    assert new.key is not None
    return new.key.secret


class TestCreateUser:
    async def test_is_found_again_by_id_and_by_name(self, identity: Identity, clock: FakeClock) -> None:
        user = (await make_user(identity, "Ann")).user

        assert await identity.get_user(user.id) == user == await identity.find_user("aNN")
        assert (user.username, user.email, user.role, user.created_ms) == (
            "Ann",
            "Ann@example.org",
            Role.BUYER,
            clock.now_ms(),
        )

    async def test_inside_a_larger_command_all_or_nothing_is_written(
        self, identity: Identity, database: Database
    ) -> None:
        """The street opens the ledger account in the same command; when that fails there is no user."""
        new = await identity.prepare_user(username="ann", email=None, password=None)

        def command(tx: Tx) -> None:
            identity.insert_user(tx, new)
            raise LookupError("no account")

        with pytest.raises(LookupError):
            await database.run(command)
        assert await identity.find_user("ann") is None

    async def test_a_name_is_taken_in_whatever_case(self, identity: Identity) -> None:
        await make_user(identity, "ann")

        with pytest.raises(UsernameTaken) as refused:
            await identity.create_user(username="ANN", email="ann@example.org", password=PASSWORD)

        assert refused.value.username == "ANN"

    async def test_an_address_is_taken_in_whatever_case(self, identity: Identity) -> None:
        await make_user(identity, "ann")

        with pytest.raises(EmailTaken) as refused:
            await identity.create_user(username="bob", email="ANN@example.org", password=PASSWORD)

        assert refused.value.email == "ANN@example.org"
        assert await identity.find_user("bob") is None

    async def test_of_many_at_once_one_gets_the_name(self, identity: Identity) -> None:
        outcomes = await asyncio.gather(*(make_user(identity) for _ in range(8)), return_exceptions=True)

        assert sum(isinstance(outcome, NewUser) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, UsernameTaken) for outcome in outcomes) == 7

    async def test_people_without_an_address_do_not_collide(self, identity: Identity) -> None:
        for name in ("operator", "demo"):
            await identity.create_user(username=name, email=None, password=None)

        assert (await identity.list_users())[1] == 2

    async def test_neither_password_nor_key_is_stored_or_printed(self, identity: Identity, database: Database) -> None:
        new = await make_user(identity)

        stored = repr([await database.fetch("SELECT * FROM users"), await database.fetch("SELECT * FROM access_keys")])

        assert "$argon2id$" in stored
        for text in (stored, repr(new), repr(new.key)):
            assert PASSWORD not in text
            assert secret_of(new) not in text


FIELDS = [
    ("username", "an"),
    ("username", "a" * 65),
    ("username", "ann smith"),
    ("username", "ann@x"),
    ("username", "änn"),
    ("username", "ann\n"),
    ("username", ""),
    ("email", "ann"),
    ("email", "@x"),
    ("email", "a@b@c"),
    ("email", "a b@c"),
    ("email", "a@" + "b" * 190),
    ("email", "a\x00@b"),
    ("email", "a@b\n"),
    ("password", "short"),
    ("password", "x" * 257),
]


class TestFields:
    @pytest.mark.parametrize(("field", "value"), FIELDS)
    async def test_out_of_bounds_are_refused_by_name(self, identity: Identity, field: str, value: str) -> None:
        fields = {"username": "ann", "email": "ann@example.org", "password": PASSWORD, field: value}

        with pytest.raises(InvalidField) as refused:
            await identity.prepare_user(username=fields["username"], email=fields["email"], password=fields["password"])

        assert refused.value.field == field

    @pytest.mark.parametrize(
        ("limit", "offset", "field"), [(0, 0, "limit"), (1_001, 0, "limit"), (1, -1, "offset"), (1, 1 << 63, "offset")]
    )
    async def test_of_a_page_are_bounded(self, identity: Identity, limit: int, offset: int, field: str) -> None:
        with pytest.raises(InvalidField) as refused:
            await identity.list_users(limit, offset)

        assert refused.value.field == field


class TestListUsers:
    async def test_pages_in_order_of_arrival_with_the_total(self, identity: Identity) -> None:
        for name in ("ann", "bob", "cid"):
            await identity.create_user(username=name, email=None, password=None)

        rows, total = await identity.list_users(2, 1)

        assert [row.username for row in rows] == ["bob", "cid"]
        assert total == 3

    async def test_somebody_unknown_is_refused(self, identity: Identity) -> None:
        with pytest.raises(UnknownUser):
            await identity.get_user(bytes(16))


class TestKeys:
    async def test_look_as_promised(self, identity: Identity) -> None:
        user = await make_user(identity)
        host_key = await identity.create_key(OwnerKind.HOST, HOST_ID)

        assert secret_of(user).startswith("ck_")
        assert len(secret_of(user)) == 3 + 43
        assert host_key.secret.startswith("hk_live_")
        assert len(host_key.secret) == 8 + 43

    async def test_a_second_key_opens_beside_the_first(self, identity: Identity) -> None:
        user = await make_user(identity)
        second = await identity.create_key(OwnerKind.USER, user.user.id)

        who = [await identity.resolve(bearer(secret)) for secret in (secret_of(user), second.secret)]

        assert [isinstance(one, Principal) and one.id for one in who] == [user.user.id] * 2
        assert [key.id for key in await identity.keys_of(user.user.id)] == [user.key and user.key.id, second.id]

    @pytest.mark.parametrize("verb", ["create_key", "rotate_key"])
    async def test_nobody_unknown_gets_one(self, identity: Identity, verb: str) -> None:
        with pytest.raises(UnknownUser):
            await getattr(identity, verb)(OwnerKind.USER, bytes(16))

    async def test_rotation_ends_all_old_keys_at_once_and_leaves_others_alone(self, identity: Identity) -> None:
        ann, bob = await make_user(identity, "ann"), await make_user(identity, "bob")
        second = await identity.create_key(OwnerKind.USER, ann.user.id)
        for secret in (secret_of(ann), second.secret, secret_of(bob)):
            await identity.resolve(bearer(secret))

        new = await identity.rotate_key(OwnerKind.USER, ann.user.id)

        for secret in (secret_of(ann), second.secret):
            assert identity.resolve_cached(b"Bearer " + secret.encode()) is None
            with pytest.raises(NotAuthenticated):
                await identity.resolve(bearer(secret))
        for secret in (new.secret, secret_of(bob)):
            assert isinstance(await identity.resolve(bearer(secret)), Principal)

    async def test_a_revoked_key_ends_at_once(self, identity: Identity) -> None:
        ann = await make_user(identity)
        assert ann.key is not None
        await identity.resolve(bearer(ann.key.secret))

        await identity.revoke_key(ann.key.id, owner_id=ann.user.id)

        with pytest.raises(NotAuthenticated):
            await identity.resolve(bearer(ann.key.secret))
        (record,) = await identity.keys_of(ann.user.id)
        assert record.revoked_ms is not None

    async def test_somebody_elses_key_cannot_be_revoked(self, identity: Identity) -> None:
        ann, bob = await make_user(identity, "ann"), await make_user(identity, "bob")
        assert ann.key is not None

        with pytest.raises(UnknownAccessKey):
            await identity.revoke_key(ann.key.id, owner_id=bob.user.id)

        assert isinstance(await identity.resolve(bearer(ann.key.secret)), Principal)

    async def test_a_look_up_begun_before_a_revocation_is_not_remembered_after_it(
        self, identity: Identity, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ann = await make_user(identity)
        fetch = database.fetch_point

        async def slow(*args: object) -> tuple[object, ...] | None:
            row = await fetch(*args)  # type: ignore[arg-type]
            monkeypatch.setattr(database, "fetch_point", fetch)
            await identity.rotate_key(OwnerKind.USER, ann.user.id)
            return row

        monkeypatch.setattr(database, "fetch_point", slow)
        await identity.resolve(bearer(secret_of(ann)))

        assert identity.resolve_cached(b"Bearer " + secret_of(ann).encode()) is None


class TestForgetKeys:
    """Two coordinators over one database."""

    @pytest.fixture
    async def other(self, database: Database, clock: FakeClock) -> AsyncIterator[Identity]:
        room = make_identity(database, clock)
        yield room
        room.close()

    async def test_a_key_revoked_elsewhere_ends_when_it_is_heard_of(
        self, identity: Identity, other: Identity, events: EventHub
    ) -> None:
        ann, bob = await make_user(identity, "ann"), await make_user(identity, "bob")
        assert ann.key is not None
        for one in (ann, bob):
            await other.resolve(bearer(secret_of(one)))
        events.subscribe(KeysRevoked, lambda event: other.forget_keys(event.digests))

        await identity.revoke_key(ann.key.id, owner_id=ann.user.id)

        assert other.resolve_cached(b"Bearer " + secret_of(ann).encode()) is None
        with pytest.raises(NotAuthenticated):
            await other.resolve(bearer(secret_of(ann)))
        assert other.resolve_cached(b"Bearer " + secret_of(bob).encode()) is not None

    async def test_every_key_that_a_rotation_ends_is_told_as_bytes(self, identity: Identity, events: EventHub) -> None:
        ann = await make_user(identity)
        second = await identity.create_key(OwnerKind.USER, ann.user.id)
        told: list[bytes] = []
        events.subscribe(KeysRevoked, lambda event: told.extend(event.digests))

        await identity.rotate_key(OwnerKind.USER, ann.user.id)

        assert set(told) == {hashlib.sha256(secret.encode()).digest() for secret in (secret_of(ann), second.secret)}
        assert {type(digest) for digest in told} == {bytes}

    async def test_a_look_up_under_way_is_not_remembered(
        self, identity: Identity, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ann = await make_user(identity)
        fetch = database.fetch_point

        async def slow(*args: object) -> tuple[object, ...] | None:
            row = await fetch(*args)  # type: ignore[arg-type]
            identity.forget_keys([bytes(32)])
            return row

        monkeypatch.setattr(database, "fetch_point", slow)
        await identity.resolve(bearer(secret_of(ann)))

        assert identity.resolve_cached(b"Bearer " + secret_of(ann).encode()) is None

    async def test_when_news_was_lost_every_key_is_asked_for_again(self, identity: Identity) -> None:
        ann = await make_user(identity)
        await identity.resolve(bearer(secret_of(ann)))

        identity.forget_all_keys()

        assert identity.resolve_cached(b"Bearer " + secret_of(ann).encode()) is None
        assert isinstance(await identity.resolve(bearer(secret_of(ann))), Principal)


class TestResolve:
    async def test_a_key_opens_by_every_way_it_may_come(self, identity: Identity) -> None:
        admin = await make_user(identity, "root", role=Role.ADMIN)
        assert admin.key is not None
        secret = admin.key.secret.encode()
        expected = Principal(OwnerKind.USER, admin.user.id, Role.ADMIN, admin.key.id, "root")

        for given in (
            Credentials(ip=IP, authorization=b"Bearer " + secret),
            Credentials(ip=IP, authorization=b"bearer  " + secret),
            Credentials(ip=IP, x_api_key=secret),
            Credentials(ip=IP, x_admin_key=secret),
            Credentials(ip=IP, query_key=secret),
        ):
            assert await identity.resolve(given) == expected

    async def test_a_hosts_key_makes_a_host(self, identity: Identity) -> None:
        key = await identity.create_key(OwnerKind.HOST, HOST_ID)

        assert await identity.resolve(bearer(key.secret)) == Principal(OwnerKind.HOST, HOST_ID, Role.HOST, key.id, "")

    async def test_without_a_credential_it_is_anonymous(self, identity: Identity) -> None:
        assert await identity.resolve(Credentials(ip=IP)) == Anonymous(IP)

    async def test_a_buyers_key_is_no_admin_key(self, identity: Identity) -> None:
        ann = await make_user(identity)

        with pytest.raises(NotAllowed):
            await identity.resolve(Credentials(ip=IP, x_admin_key=secret_of(ann).encode()))

    @pytest.mark.parametrize(
        "authorization",
        [
            b"",
            b"Bearer",
            b"Bearer ",
            b"Bearer x",
            b"Digest a",
            b"Bearer ck_" + b"A" * 43,
            b"Bearer ck_" + b"A" * 9_000,
            b"Basic",
            b"Basic !!",
            b"Basic /w==",
            b"Basic " + base64.b64encode(b"ann"),
            b"Basic " + base64.b64encode(b"ann:wrong"),
            b"Basic " + base64.b64encode(b"ann:" + b"x" * 9_000),
            b"Basic " + base64.b64encode(b"nobody:wrong password"),
            b"Basic " + base64.b64encode(b"\x00:x"),
        ],
    )
    async def test_a_wrong_credential_is_never_anonymous(self, identity: Identity, authorization: bytes) -> None:
        await make_user(identity)

        with pytest.raises(NotAuthenticated):
            await identity.resolve(Credentials(ip=IP, authorization=authorization))

    async def test_unknown_keys_leave_nothing_in_memory(self, identity: Identity) -> None:
        for number in range(50):
            with pytest.raises(NotAuthenticated):
                await identity.resolve(bearer(f"ck_{number:043d}"))

        assert len(identity._by_digest) == 0


class TestResolveCached:
    async def test_knows_a_key_after_its_first_use(self, identity: Identity) -> None:
        ann = await make_user(identity)
        header = b"Bearer " + secret_of(ann).encode()
        assert identity.resolve_cached(header) is None

        principal = await identity.resolve(bearer(secret_of(ann)))

        assert identity.resolve_cached(header) is principal

    async def test_asks_the_database_again_after_its_time(self, identity: Identity, clock: FakeClock) -> None:
        """Another coordinator may have revoked the key."""
        ann = await make_user(identity)
        await identity.resolve(bearer(secret_of(ann)))

        clock.advance(seconds=KEY_CACHE_S)

        assert identity.resolve_cached(b"Bearer " + secret_of(ann).encode()) is None

    async def test_memory_is_bounded(self, database: Database, clock: FakeClock) -> None:
        identity = make_identity(database, clock, key_cache_size=4)
        for number in range(10):
            await identity.resolve(bearer((await identity.create_key(OwnerKind.HOST, bytes([number]) * 16)).secret))

        assert len(identity._by_digest) <= 4
        identity.close()


class TestPasswords:
    async def test_opens_by_username_or_address_in_whatever_case(self, identity: Identity) -> None:
        ann = await make_user(identity)

        for name in ("ann", "ANN", "ann@example.org", "Ann@Example.org"):
            assert await identity.resolve(basic(name, PASSWORD)) == Principal(
                OwnerKind.USER, ann.user.id, Role.BUYER, None, "ann"
            )

    async def test_people_without_a_password_have_no_way_in(self, identity: Identity) -> None:
        await identity.create_user(username="demo", email=None, password=None)

        for guess in ("", "None", "nobody's password"):
            with pytest.raises(NotAuthenticated):
                await identity.resolve(basic("demo", guess))

    async def test_a_password_is_hashed_once_a_minute_not_once_a_request(
        self, database: Database, clock: FakeClock
    ) -> None:
        identity = make_identity(database, clock, logins_per_minute=2)
        await make_user(identity)

        for _ in range(50):
            await identity.resolve(basic("ann", PASSWORD))

        identity.close()

    async def test_guessing_is_throttled_per_username_over_all_addresses(
        self, database: Database, clock: FakeClock
    ) -> None:
        identity = make_identity(database, clock, logins_per_minute=3)
        await make_user(identity)
        for number in range(3):
            with pytest.raises(NotAuthenticated):
                await identity.resolve(basic("ann", f"guess {number}", ip=f"192.0.2.{number}"))

        with pytest.raises(TooManyRequests, match="username") as refused:
            await identity.resolve(basic("ann", PASSWORD, ip="192.0.2.9"))
        clock.advance(seconds=refused.value.retry_after_s)

        assert isinstance(await identity.resolve(basic("ann", PASSWORD, ip="192.0.2.9")), Principal)
        identity.close()

    async def test_guessing_is_throttled_per_address_over_all_usernames(
        self, database: Database, clock: FakeClock
    ) -> None:
        identity = make_identity(database, clock, logins_per_minute=3)
        for number in range(3):
            with pytest.raises(NotAuthenticated):
                await identity.resolve(basic(f"user{number}", "guess", ip=f"2001:db8::{number}"))

        with pytest.raises(TooManyRequests, match="address"):
            await identity.resolve(basic("user9", "guess", ip="2001:db8::9"))
        identity.close()

    async def test_waiting_hashes_are_bounded(self, identity: Identity) -> None:
        made = await asyncio.gather(
            *(identity.prepare_user(username=f"user{number}", email=None, password=PASSWORD) for number in range(200)),
            return_exceptions=True,
        )

        assert {type(one) for one in made} == {NewUser, TooManyRequests}
