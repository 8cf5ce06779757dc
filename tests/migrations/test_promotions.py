"""Credit that was given before promotions were kept apart: what is not spent of it becomes promotional."""

import itertools
from collections.abc import AsyncIterator

import pytest

from comptoir.kit.clock import FakeClock
from comptoir.kit.db import Database, Tx, open_database
from comptoir.ledger import ANONYMOUS_CALLERS, FEES, PAYMENTS_IN, PROMOTIONS, Ledger, audit
from comptoir.migrations import shipped, upgrade

HOST = b"h" * 16
CASES = {
    b"a" * 16: ("buyer", 100, 0, 0, 100),
    b"b" * 16: ("buyer", 100, 50, 30, 70),
    b"c" * 16: ("buyer", 100, 50, 100, 0),
    b"d" * 16: ("buyer", 100, 500, 400, 0),
    b"e" * 16: ("buyer", 0, 500, 400, 0),
    b"f" * 16: ("buyer", 0, 0, 0, 0),
    ANONYMOUS_CALLERS: ("unnamed", 40, 0, 15, 25),
}
"""By account: kind, what was given and what was paid in, what was spent at a host, and what is promotional then."""
OPERATORS = {PROMOTIONS: "promotions", PAYMENTS_IN: "payments_in", FEES: "fees", HOST: "host"}


@pytest.fixture
async def database(database_address: str) -> AsyncIterator[Database]:
    opened = open_database(database_address)
    yield opened
    await opened.close()


def fill(tx: Tx) -> None:
    """Write a ledger as coordinators of the version before do."""
    numbers = itertools.count(1)
    balances = dict.fromkeys((*CASES, *OPERATORS), 0)
    for account, (kind, given, paid_in, spent, _) in CASES.items():
        gave = "signup" if kind == "buyer" else "allowance"
        for debit, credit, amount, what in (
            (PROMOTIONS, account, given, gave),
            (PAYMENTS_IN, account, paid_in, "deposit"),
            (account, HOST, spent, "pay"),
        ):
            if amount:
                balances[debit] -= amount
                balances[credit] += amount
                tx.execute(
                    "INSERT INTO transfers (id, debit_id, credit_id, amount_uusd, kind, created_ms) VALUES (?,?,?,?,?,?)",
                    [next(numbers).to_bytes(16, "big"), debit, credit, amount, what, 1],
                )
    kinds = {account: case[0] for account, case in CASES.items()} | OPERATORS
    for account, balance in balances.items():
        tx.execute(
            "INSERT INTO accounts (id, kind, balance_uusd, held_uusd, created_ms) VALUES (?,?,?,0,1)",
            [account, kinds[account], balance],
        )


class TestPromotions:
    async def test_what_was_given_and_not_spent_is_promotional(self, database: Database) -> None:
        """What hosts earned until then stays theirs."""
        scripts = shipped(database.dialect)
        position = next(number for number, one in enumerate(scripts) if one.name.endswith("_promotions"))
        await upgrade(database, scripts[:position])
        await database.run(fill)

        await upgrade(database)

        ledger = Ledger(database, FakeClock())
        found = await ledger.accounts([*CASES, HOST])
        assert {account: found[account].promo_uusd for account in CASES} == {
            account: promo for account, (*_, promo) in CASES.items()
        }
        assert found[HOST].payable_uusd == found[HOST].balance_uusd == 945
        assert await audit(database) == []
        assert await database.fetch("SELECT promo_uusd FROM accounts WHERE id = ?", [PROMOTIONS]) == [(-195,)]

    async def test_an_empty_ledger_stays_empty(self, database: Database) -> None:
        await upgrade(database)

        assert await database.fetch("SELECT count(*) FROM promo_corrections") == [(0,)]
