"""The receipts room over both databases: stored once, read back whole, keys with one holder."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from comptoir.kit.clock import FakeClock
from comptoir.kit.db import Database
from comptoir.kit.errors import InvalidField
from comptoir.receipts import (
    COORDINATOR,
    TABLES,
    HolderKind,
    KeyTaken,
    Receipts,
    UnknownKey,
    UnknownReceipt,
    build_and_sign,
    read_registry,
    verify,
)
from comptoir.receipts.testing import make_facts, make_key, make_segment
from tests.conftest import MakeDatabase

KEY, HOST_KEY = make_key(1), make_key(2)


@pytest.fixture
async def database(make_database: MakeDatabase) -> AsyncIterator[Database]:
    async with make_database(TABLES) as opened:
        yield opened


@pytest.fixture
async def receipts(database: Database, clock: FakeClock) -> Receipts:
    room = Receipts(database, clock, KEY)
    await room.start()
    return room


def job(number: int) -> bytes:
    return number.to_bytes(16, "big")


class TestOwnKeys:
    async def test_they_are_the_coordinators_and_ours_is_valid_from_the_beginning(
        self, database: Database, receipts: Receipts
    ) -> None:
        """A database taken back to before our first start has the key from a later one."""
        another = make_key(3)
        await database.run(
            lambda tx: [
                Receipts.register_key(tx, key.public_key, holder_kind=kind, holder=holder, at_ms=7)
                for key, kind, holder in (
                    (another, HolderKind.COORDINATOR, COORDINATOR), (HOST_KEY, HolderKind.HOST, "host_1"),
                )
            ]
        )  # fmt: skip

        own = (await receipts.own_keys()).by_keyid

        assert {keyid: key.valid_from_ms for keyid, key in own.items()} == {KEY.keyid: 0, another.keyid: 7}

    async def test_a_key_that_the_database_does_not_have_is_ours_all_the_same(
        self, database: Database, clock: FakeClock
    ) -> None:
        room = Receipts(database, clock, KEY)

        assert list((await room.own_keys()).by_keyid) == [KEY.keyid]

    async def test_one_that_was_revoked_stays_so(self, database: Database, receipts: Receipts) -> None:
        await database.run(lambda tx: Receipts.revoke(tx, KEY.keyid, at_ms=9))

        assert (await receipts.own_keys()).by_keyid[KEY.keyid].revoked_ms == 9


class TestStore:
    async def test_a_stored_receipt_verifies_with_the_published_registry(
        self, database: Database, receipts: Receipts
    ) -> None:
        receipt = receipts.build(make_facts())
        await database.run(lambda tx: receipts.insert_rows(tx, [receipt]))

        sealed, keys = await receipts.envelope_of(receipt.job_id), await receipts.registry()

        assert verify(sealed, read_registry(keys)).ok

    async def test_a_job_keeps_its_first_receipt(self, database: Database, receipts: Receipts) -> None:
        first = receipts.build(make_facts())
        second = receipts.build(make_facts(price_out=2_000_000))
        await database.run(lambda tx: receipts.insert_rows(tx, [first]))

        new = await database.run(lambda tx: receipts.insert_rows(tx, [second]))

        assert new == 0
        assert await receipts.get(first.job_id) == first

    async def test_a_job_without_one_is_unknown(self, receipts: Receipts) -> None:
        with pytest.raises(UnknownReceipt):
            await receipts.get(job(7))

    async def test_pages_go_from_the_youngest_job_without_overlap(self, database: Database, receipts: Receipts) -> None:
        rows = [receipts.build(make_facts(job_id=job(number), segments=[])) for number in range(1, 6)]
        await database.run(lambda tx: receipts.insert_rows(tx, rows))

        first = await receipts.list(limit=3)
        second = await receipts.list(limit=3, before=first[-1].job_id)

        assert [row.job_id for row in [*first, *second]] == [job(number) for number in (5, 4, 3, 2, 1)]

    @pytest.mark.parametrize("limit", [0, 501])
    async def test_a_page_is_bounded(self, receipts: Receipts, limit: int) -> None:
        with pytest.raises(InvalidField, match="limit"):
            await receipts.list(limit=limit)


class TestKeys:
    async def test_starting_again_keeps_the_coordinators_key(
        self, database: Database, clock: FakeClock, receipts: Receipts
    ) -> None:
        clock.advance(seconds=60)
        await Receipts(database, clock, KEY).start()

        (key,) = await receipts.keys()

        assert key.keyid == KEY.keyid
        assert key.valid_from_ms == clock.now_ms() - 60_000

    async def test_one_key_has_one_holder(self, database: Database, receipts: Receipts) -> None:
        with pytest.raises(KeyTaken):
            await database.run(
                lambda tx: receipts.register_key(
                    tx, KEY.public_key, holder_kind=HolderKind.HOST, holder="host_1", at_ms=1
                )
            )

        assert [key.holder_kind for key in await receipts.keys()] == [HolderKind.COORDINATOR]

    async def test_a_key_of_another_length_is_refused(self, database: Database, receipts: Receipts) -> None:
        with pytest.raises(InvalidField, match="public_key"):
            await database.run(
                lambda tx: receipts.register_key(tx, b"short", holder_kind=HolderKind.HOST, holder="host_1", at_ms=1)
            )

    async def test_a_holders_keys_are_found_by_holder(self, database: Database, receipts: Receipts) -> None:
        keyid = await database.run(
            lambda tx: receipts.register_key(
                tx, HOST_KEY.public_key, holder_kind=HolderKind.HOST, holder="host_1", at_ms=1
            )
        )

        assert [key.keyid for key in await receipts.keys_of("host_1")] == [keyid] == [HOST_KEY.keyid]

    async def test_a_revoked_key_keeps_its_first_moment_and_its_row(
        self, database: Database, receipts: Receipts
    ) -> None:
        await database.run(lambda tx: receipts.revoke(tx, KEY.keyid, at_ms=5))
        await database.run(lambda tx: receipts.revoke(tx, KEY.keyid, at_ms=9))
        await receipts.start()

        (key,) = await receipts.keys()

        assert key.revoked_ms == 5

    async def test_an_unknown_key_cannot_be_revoked(self, database: Database, receipts: Receipts) -> None:
        with pytest.raises(UnknownKey):
            await database.run(lambda tx: receipts.revoke(tx, HOST_KEY.keyid, at_ms=5))

    async def test_a_revoked_host_key_ends_belief_in_later_receipts(
        self, database: Database, receipts: Receipts, clock: FakeClock
    ) -> None:
        segment = make_segment(key=HOST_KEY)
        holder = f"host_{segment.host_id.hex()}"
        await database.run(
            lambda tx: receipts.register_key(
                tx, HOST_KEY.public_key, holder_kind=HolderKind.HOST, holder=holder, at_ms=1
            )
        )
        receipt = receipts.build(make_facts(segments=[segment], settled_ms=clock.now_ms()))
        await database.run(lambda tx: receipts.insert_rows(tx, [receipt]))
        before = read_registry(await receipts.registry())

        await database.run(lambda tx: receipts.revoke(tx, HOST_KEY.keyid, at_ms=clock.now_ms()))

        sealed = await receipts.envelope_of(receipt.job_id)
        assert verify(sealed, before).ok
        assert not verify(sealed, read_registry(await receipts.registry())).ok


class TestBuild:
    def test_facts_that_do_not_add_up_are_never_signed(self) -> None:
        wrong = msgspec.structs.replace(make_facts(), released_uusd=0)

        with pytest.raises(AssertionError):
            build_and_sign(wrong, KEY)
