"""Bonds over both databases: put up, given back or forfeited, once, with exact books."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from comptoir.events import TABLES as EVENT_TABLES
from comptoir.kit.clock import FakeClock
from comptoir.kit.db import Database, Tx, open_database
from comptoir.ledger import (
    BONDS,
    FORFEITS,
    TABLES,
    BondNotCovered,
    BondState,
    Book,
    Ledger,
    NoBond,
    audit,
    bond_accounts,
    bond_rows,
    bonds_of,
    close_bond,
    open_bond,
    open_bonds,
    put_up_bond,
)
from tests.conftest import MakeDatabase

OWNER, HOST, OTHER_HOST = b"o" * 16, b"h" * 16, b"i" * 16


@pytest.fixture
async def database(make_database: MakeDatabase) -> AsyncIterator[Database]:
    async with make_database((*TABLES, *EVENT_TABLES)) as opened:
        yield opened


@pytest.fixture
async def ledger(database: Database, clock: FakeClock) -> Ledger:
    """Give a ledger in which the owner has 1,000."""
    room = Ledger(database, clock)
    await room.open_operator_accounts()
    await database.run(lambda tx: room.open_account(tx, owner_id=OWNER, kind="buyer", at_ms=1))
    await room.deposit(owner_id=OWNER, amount_uusd=1000)
    return room


async def put_up(database: Database, host: bytes = HOST, amount: int = 700) -> None:
    def command(tx: Tx) -> None:
        put_up_bond(tx, host_id=host, owner_id=OWNER, amount_uusd=amount, at_ms=5)

    await database.run(command, locks=bond_rows(host, OWNER))


async def close(database: Database, as_: BondState, host: bytes = HOST) -> None:
    def command(tx: Tx) -> None:
        book = Book.load(tx, bond_accounts(OWNER))
        close_bond(tx, open_bond(tx, host), book, as_=as_, at_ms=9)
        book.apply(tx)

    await database.run(command, locks=bond_rows(host, OWNER))


async def balances(ledger: Ledger) -> tuple[int, int, int]:
    """Return what the owner, the bonds and the forfeits have."""
    found = await ledger.accounts([OWNER, BONDS, FORFEITS])
    return found[OWNER].balance_uusd, found[BONDS].balance_uusd, found[FORFEITS].balance_uusd


class TestPutUp:
    async def test_it_leaves_the_owners_credit_and_is_no_hold(self, ledger: Ledger, database: Database) -> None:
        await put_up(database)

        assert await balances(ledger) == (300, 700, 0)
        assert (await ledger.account(OWNER)).held_uusd == 0
        assert [row.kind for row in (await ledger.statement(OWNER)).transfers] == ["bond", "deposit"]
        assert await audit(database) == []

    async def test_more_than_is_free_is_refused_in_words_and_writes_nothing(
        self, ledger: Ledger, database: Database
    ) -> None:
        await put_up(database)
        with pytest.raises(BondNotCovered, match=r"takes a bond of 0\.0700 credits, and 0\.0300"):
            await put_up(database, OTHER_HOST)

        assert await balances(ledger) == (300, 700, 0)
        assert list(await bonds_of(database, [HOST, OTHER_HOST])) == [HOST]

    async def test_one_account_covers_as_many_as_it_has_however_many_come_at_once(
        self, ledger: Ledger, database: Database, database_address: str
    ) -> None:
        other = open_database(database_address) if database.dialect == "postgresql" else database
        try:
            tries = [put_up(each, bytes([n]) * 16, 400) for n, each in enumerate([database, other] * 3, start=1)]
            outcomes = await asyncio.gather(*tries, return_exceptions=True)
        finally:
            await other.close()

        assert outcomes.count(None) == 2
        assert sum(isinstance(one, BondNotCovered) for one in outcomes) == 4


class TestClose:
    @pytest.mark.parametrize(
        ("as_", "then", "kind"),
        [(BondState.RETURNED, (1000, 0, 0), "bond_back"), (BondState.FORFEITED, (300, 0, 700), "bond")],
    )
    async def test_it_goes_to_the_owner_or_is_forfeited(
        self, ledger: Ledger, database: Database, as_: BondState, then: tuple[int, int, int], kind: str
    ) -> None:
        await put_up(database)

        await close(database, as_)

        bond = (await bonds_of(database, [HOST]))[HOST]
        assert await balances(ledger) == then
        assert (bond.state, bond.closed_ms, await open_bonds(database, b"")) == (as_, 9, [])
        assert (await ledger.statement(OWNER)).transfers[0].kind == kind
        assert await audit(database) == []

    async def test_one_of_many_who_try_at_once_closes_it(
        self, ledger: Ledger, database: Database, database_address: str
    ) -> None:
        """An operator forfeits it while two coordinators give it back."""
        await put_up(database)
        other = open_database(database_address) if database.dialect == "postgresql" else database
        try:
            tries = [
                close(each, as_) for each, as_ in ((database, BondState.RETURNED), (other, BondState.FORFEITED)) * 3
            ]
            outcomes = await asyncio.gather(*tries, return_exceptions=True)
        finally:
            await other.close()

        assert outcomes.count(None) == 1
        assert sum(isinstance(one, NoBond) for one in outcomes) == 5

    async def test_where_nothing_was_put_up_nothing_is_closed(self, ledger: Ledger, database: Database) -> None:
        with pytest.raises(NoBond, match="nothing was put up"):
            await close(database, BondState.FORFEITED)


class TestAudit:
    async def test_a_bond_without_its_money_is_a_difference(self, ledger: Ledger, database: Database) -> None:
        await put_up(database)
        await database.run(lambda tx: tx.execute("UPDATE bonds SET amount_uusd = 699"))

        (found,) = await audit(database)

        assert (found.what, found.recorded, found.recomputed) == ("bonds", 700, 699)


async def test_pages_of_open_bonds_follow_each_other(ledger: Ledger, database: Database) -> None:
    for host in (HOST, OTHER_HOST):
        await put_up(database, host, 10)

    assert [bond.host_id for bond in await open_bonds(database, b"")] == [HOST, OTHER_HOST]
    assert [bond.host_id for bond in await open_bonds(database, HOST)] == [OTHER_HOST]
