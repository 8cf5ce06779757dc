"""The ledger: whole micro-dollars, double entry, holds; the same on both databases."""

from collections.abc import AsyncIterator, Callable

import pytest

from comptoir.events import TABLES as EVENT_TABLES
from comptoir.events import CreditAdded, EventHub, Events
from comptoir.kit.clock import FakeClock
from comptoir.kit.db import Database, Tx
from comptoir.kit.ids import new_id
from comptoir.ledger import (
    ANONYMOUS_CALLERS,
    BONDS,
    FEES,
    FORFEITS,
    OPERATOR_ACCOUNTS,
    PAYMENTS_IN,
    PROMOTIONS,
    TABLES,
    Book,
    HoldMismatch,
    InsufficientCredit,
    Ledger,
    LedgerDifference,
    OwnMoneyShort,
    Transfer,
    UnknownAccount,
    audit,
)
from tests.conftest import MakeDatabase

BUYER, HOST, JOB = b"b" * 16, b"h" * 16, b"j" * 16


@pytest.fixture
async def database(make_database: MakeDatabase) -> AsyncIterator[Database]:
    async with make_database((*TABLES, *EVENT_TABLES)) as opened:
        yield opened


@pytest.fixture
async def ledger(database: Database, clock: FakeClock) -> Ledger:
    """A buyer with 1,000 micro-dollars and a host with none."""
    room = Ledger(database, clock)
    await room.open_operator_accounts()

    def people(tx: Tx) -> None:
        room.open_account(tx, owner_id=BUYER, kind="buyer", at_ms=1)
        room.open_account(tx, owner_id=HOST, kind="host", at_ms=1)

    await database.run(people)
    await room.deposit(owner_id=BUYER, amount_uusd=1000)
    return room


async def make_promotional(database: Database, amount_uusd: int) -> None:
    """Exchange so much of the buyer's own money for promotional credit."""

    def command(tx: Tx) -> None:
        book = Book.load(tx, [BUYER, PAYMENTS_IN, PROMOTIONS])
        if amount_uusd:
            book.move(debit=BUYER, credit=PAYMENTS_IN, amount_uusd=amount_uusd, kind="x", job_id=None, at_ms=1)
            book.move(debit=PROMOTIONS, credit=BUYER, amount_uusd=amount_uusd, kind="signup", job_id=None, at_ms=1)
        book.apply(tx)

    await database.run(command)


async def hold(database: Database, amount_uusd: int, job_id: bytes = JOB, *, own_money: bool = False) -> None:
    def command(tx: Tx) -> None:
        book = Book.load(tx, [BUYER], [job_id])
        book.hold(payer=BUYER, amount_uusd=amount_uusd, job_id=job_id, own_money=own_money)
        book.apply(tx)

    await database.run(command)


async def settle(
    database: Database, *pays: tuple[bytes, int, str], job_id: bytes = JOB, own_money: bool = False
) -> tuple[bytes, ...]:
    def command(tx: Tx) -> tuple[bytes, ...]:
        book = Book.load(tx, [BUYER, *(account for account, _, _ in pays)], [job_id])
        done = book.settle(job_id=job_id, pays=pays, at_ms=5, own_money=own_money)
        book.apply(tx)
        return done

    return await database.run(command)


async def figures(ledger: Ledger, owner_id: bytes) -> tuple[int, int]:
    account = await ledger.account(owner_id)
    return account.balance_uusd, account.held_uusd


class TestAccounts:
    async def test_opening_again_changes_nothing(self, ledger: Ledger, database: Database) -> None:
        await database.run(lambda tx: ledger.open_account(tx, owner_id=BUYER, kind="host", at_ms=9))
        await ledger.open_operator_accounts()

        account = await ledger.account(BUYER)
        assert (account.kind, account.balance_uusd) == ("buyer", 1000)
        assert set(await ledger.accounts([*OPERATOR_ACCOUNTS, new_id()])) == {
            PAYMENTS_IN,
            PROMOTIONS,
            FEES,
            ANONYMOUS_CALLERS,
            BONDS,
            FORFEITS,
        }

    async def test_nobody_has_none(self, ledger: Ledger) -> None:
        with pytest.raises(UnknownAccount):
            await ledger.account(new_id())
        assert await ledger.accounts([]) == {}


class TestDeposit:
    async def test_it_comes_from_payments_in(self, ledger: Ledger) -> None:
        await ledger.deposit(owner_id=BUYER, amount_uusd=234)

        assert await figures(ledger, BUYER) == (1234, 0)
        assert await figures(ledger, PAYMENTS_IN) == (-1234, 0)

    async def test_to_nobody_nothing_is_written(self, ledger: Ledger, database: Database) -> None:
        with pytest.raises(UnknownAccount):
            await ledger.deposit(owner_id=new_id(), amount_uusd=1)

        assert await figures(ledger, PAYMENTS_IN) == (-1000, 0)
        assert await audit(database) == []
        assert await database.fetch("SELECT count(*) FROM events WHERE number > 1") == [(0,)]

    async def test_it_is_told_and_numbered_once_however_often_it_is_asked_for(
        self, ledger: Ledger, database: Database, clock: FakeClock
    ) -> None:
        events, told = EventHub(), list[CreditAdded]()
        events.subscribe(CreditAdded, told.append)
        room, transfer_id = Ledger(database, clock, events=events), new_id()

        for _ in range(3):
            assert await room.deposit(owner_id=BUYER, amount_uusd=5, transfer_id=transfer_id) == transfer_id
        other = await room.deposit(owner_id=BUYER, amount_uusd=6)

        now = clock.now_ms()
        assert told == [
            CreditAdded(BUYER, now, 2, transfer_id, 5, "deposit"),
            CreditAdded(BUYER, now, 3, other, 6, "deposit"),
        ]
        assert await Events(database).after(BUYER, 1) == told


class TestHold:
    async def test_it_is_set_aside_and_no_longer_free(self, ledger: Ledger, database: Database) -> None:
        await hold(database, 700)

        account = await ledger.account(BUYER)
        assert (account.balance_uusd, account.held_uusd, account.free_uusd) == (1000, 700, 300)

    async def test_asking_twice_holds_once(self, ledger: Ledger, database: Database) -> None:
        await hold(database, 700)
        await hold(database, 700)

        assert await figures(ledger, BUYER) == (1000, 700)

    async def test_another_amount_for_the_same_job_is_refused(self, ledger: Ledger, database: Database) -> None:
        await hold(database, 700)

        with pytest.raises(HoldMismatch):
            await hold(database, 100)

        assert await figures(ledger, BUYER) == (1000, 700)

    async def test_more_than_is_free_is_refused_with_both_figures(self, ledger: Ledger, database: Database) -> None:
        await hold(database, 700)

        with pytest.raises(InsufficientCredit) as refused:
            await hold(database, 301, job_id=new_id())

        assert (refused.value.needed_uusd, refused.value.free_uusd) == (301, 300)
        await hold(database, 300, job_id=new_id())
        assert await figures(ledger, BUYER) == (1000, 1000)

    async def test_a_free_model_holds_nothing_and_still_has_its_hold(self, ledger: Ledger, database: Database) -> None:
        await hold(database, 0)
        await settle(database)

        assert await database.fetch("SELECT state, amount_uusd FROM holds") == [("released", 0)]


class TestSettle:
    async def test_each_is_paid_and_the_rest_goes_back(self, ledger: Ledger, database: Database) -> None:
        await hold(database, 700)

        transfers = await settle(database, (HOST, 440, "pay"), (FEES, 60, "fee"))

        assert len(transfers) == 2
        assert await figures(ledger, BUYER) == (500, 0)
        assert [(await figures(ledger, key))[0] for key in (HOST, FEES)] == [440, 60]
        assert await audit(database) == []

    async def test_twice_is_refused(self, ledger: Ledger, database: Database) -> None:
        await hold(database, 700)
        await settle(database, (HOST, 440, "pay"))

        with pytest.raises(HoldMismatch, match="settled"):
            await settle(database, (HOST, 440, "pay"))

        assert await figures(ledger, HOST) == (440, 0)

    async def test_more_than_is_held_is_refused(self, ledger: Ledger, database: Database) -> None:
        await hold(database, 700)

        with pytest.raises(HoldMismatch):
            await settle(database, (HOST, 650, "pay"), (FEES, 51, "fee"))

        assert await figures(ledger, BUYER) == (1000, 700)

    async def test_without_pays_it_is_released(self, ledger: Ledger, database: Database) -> None:
        await hold(database, 700)

        assert await settle(database, (HOST, 0, "pay"), (FEES, 0, "fee")) == ()

        assert await figures(ledger, BUYER) == (1000, 0)
        assert await database.fetch("SELECT state, settled_uusd FROM holds") == [("released", 0)]

    async def test_a_job_without_hold_is_refused(self, ledger: Ledger, database: Database) -> None:
        with pytest.raises(HoldMismatch, match="missing"):
            await settle(database, (HOST, 1, "pay"))

    async def test_an_account_nobody_opened_stops_it_all(self, ledger: Ledger, database: Database) -> None:
        await hold(database, 700)

        with pytest.raises(UnknownAccount):
            await settle(database, (HOST, 1, "pay"), (new_id(), 1, "fee"))

        assert await figures(ledger, BUYER) == (1000, 700)
        assert await audit(database) == []

    async def test_held_and_settled_in_one_book(self, ledger: Ledger, database: Database) -> None:
        def command(tx: Tx) -> None:
            book = Book.load(tx, [BUYER, HOST])
            book.hold(payer=BUYER, amount_uusd=900, job_id=JOB)
            book.settle(job_id=JOB, pays=((HOST, 800, "pay"),), at_ms=5)
            book.hold(payer=BUYER, amount_uusd=200, job_id=new_id())
            assert (book.balance_uusd(BUYER), book.free_uusd(BUYER)) == (200, 0)
            book.apply(tx)

        await database.run(command)

        assert await figures(ledger, BUYER) == (200, 200)
        assert await audit(database) == []


SHARES = [
    (1000, False, 440, 60, (440, 60)),
    (500, False, 440, 60, (440, 60)),
    (100, False, 440, 60, (88, 12)),
    (101, False, 440, 60, (88, 13)),
    (1, False, 440, 60, (0, 1)),
    (3, False, 8, 0, (3, 0)),
    (0, False, 440, 60, (0, 0)),
    (1000, True, 440, 60, (440, 60)),
    (300, True, 440, 60, (0, 0)),
    (300, True, 700, 0, (0, 0)),
]
"""Promotional part of 1,000, whether the host takes none, what host and fees are paid, and the promotional parts."""


T1, T2 = b"1" * 16, b"2" * 16
"""Ids of transfers that a receipt states."""


async def settle_as_stated(
    database: Database,
    *pays: tuple[bytes, int, str],
    held_uusd: int = 400,
    payer: bytes = BUYER,
    job_id: bytes = JOB,
    own_money: bool = False,
) -> None:
    def command(tx: Tx) -> None:
        book = Book.load(tx, [payer, *(account for account, _, _ in pays)], [job_id])
        book.settle_as_stated(
            job_id=job_id, payer=payer, held_uusd=held_uusd, pays=pays, transfer_ids=(T1, T2)[: len(pays)], at_ms=5,
            own_money=own_money,
        )  # fmt: skip
        book.apply(tx)

    await database.run(command)


async def hold_row(database: Database) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await database.fetch("SELECT amount_uusd, settled_uusd, state FROM holds")]


PAID = ((HOST, 264, "pay"), (FEES, 36, "fee"))


class TestSettleAsStated:
    @pytest.mark.parametrize("held", [None, 300, 400])
    async def test_a_hold_that_is_open_smaller_or_gone_is_closed_as_stated(
        self, ledger: Ledger, database: Database, held: int | None
    ) -> None:
        if held is not None:
            await hold(database, held)

        await settle_as_stated(database, *PAID)

        assert await figures(ledger, BUYER) == (700, 0)
        assert await figures(ledger, HOST) == (264, 0)
        assert await hold_row(database) == [(400, 300, "settled")]
        rows = await database.fetch("SELECT id, credit_id, amount_uusd FROM transfers WHERE job_id = ?", [JOB])
        assert {(bytes(row[0]), bytes(row[1]), row[2]) for row in rows} == {(T1, HOST, 264), (T2, FEES, 36)}
        assert await audit(database) == []

    async def test_without_pays_it_is_released(self, ledger: Ledger, database: Database) -> None:
        await hold(database, 400)

        await settle_as_stated(database)

        assert await figures(ledger, BUYER) == (1000, 0)
        assert await hold_row(database) == [(400, 0, "released")]

    async def test_what_other_jobs_hold_does_not_cover_it(self, ledger: Ledger, database: Database) -> None:
        await hold(database, 800, b"k" * 16)

        with pytest.raises(InsufficientCredit) as refused:
            await settle_as_stated(database, *PAID)

        assert (refused.value.needed_uusd, refused.value.free_uusd) == (300, 200)
        assert await figures(ledger, BUYER) == (1000, 800)
        assert await audit(database) == []

    async def test_twice_is_refused(self, ledger: Ledger, database: Database) -> None:
        await settle_as_stated(database, *PAID)

        with pytest.raises(HoldMismatch, match="settled"):
            await settle_as_stated(database, *PAID)
        assert await figures(ledger, BUYER) == (700, 0)

    async def test_the_hold_of_another_buyer_is_refused(self, ledger: Ledger, database: Database) -> None:
        await database.run(lambda tx: ledger.open_account(tx, owner_id=b"c" * 16, kind="buyer", at_ms=1))
        await hold(database, 400)

        with pytest.raises(HoldMismatch, match="another account"):
            await settle_as_stated(database, payer=b"c" * 16)

    @pytest.mark.parametrize("payer", [BUYER, b"n" * 16])
    async def test_who_has_no_account_stops_it_all(self, ledger: Ledger, database: Database, payer: bytes) -> None:
        with pytest.raises(UnknownAccount):
            await settle_as_stated(database, (HOST if payer != BUYER else b"n" * 16, 5, "pay"), payer=payer)
        assert await hold_row(database) == []
        assert await audit(database) == []

    @pytest.mark.parametrize(("own_money", "spent"), [(False, 300), (True, 0)])
    async def test_promotions_are_spent_as_in_a_settlement(
        self, ledger: Ledger, database: Database, own_money: bool, spent: int
    ) -> None:
        await make_promotional(database, 500)
        await hold(database, 400, own_money=own_money)

        await settle_as_stated(database, *PAID, own_money=own_money)

        assert (await ledger.account(BUYER)).promo_uusd == 500 - spent
        assert await audit(database) == []


class TestPostAgain:
    async def test_lost_ones_are_posted_with_their_ids_once(
        self, database: Database, clock: FakeClock, ledger: Ledger
    ) -> None:
        events = EventHub()
        told: list[CreditAdded] = []
        events.subscribe(CreditAdded, told.append)
        room = Ledger(database, clock, events=events)
        lost = [
            Transfer(T1, PAYMENTS_IN, BUYER, 500, "deposit", None, 3),
            Transfer(T2, PROMOTIONS, HOST, 7, "signup", None, 4),
        ]

        assert await room.post_again(lost) == {T1, T2}
        assert await room.post_again(lost) == {T1, T2}

        assert await figures(ledger, BUYER) == (1500, 0)
        assert (await ledger.account(HOST)).promo_uusd == 7
        assert [(event.transfer_id, event.amount_uusd, event.number) for event in told] == [(T1, 500, 2)]
        assert await audit(database) == []

    async def test_what_can_not_be_posted_is_left_out(self, ledger: Ledger, database: Database) -> None:
        """An account that is gone, a bond without its host, credit that is not there; what can be posted is."""
        other = new_id()
        lost = [
            Transfer(new_id(), PAYMENTS_IN, b"n" * 16, 5, "deposit", None, 3),
            Transfer(new_id(), BUYER, BONDS, 5, "bond", None, 3),
            Transfer(new_id(), HOST, PROMOTIONS, 5, "allowance", None, 3),
            Transfer(other, PAYMENTS_IN, HOST, 5, "deposit", None, 3),
        ]

        assert await ledger.post_again(lost) == {other}
        assert await audit(database) == []


class TestPromotions:
    @pytest.mark.parametrize(("promo", "own_money", "pay", "fee", "parts"), SHARES)
    async def test_they_are_spent_first_and_each_has_its_share(
        self,
        ledger: Ledger,
        database: Database,
        promo: int,
        own_money: bool,
        pay: int,
        fee: int,
        parts: tuple[int, int],
    ) -> None:
        """Of a host that takes none the buyer's own money is spent, if it covers the hold."""
        await make_promotional(database, promo)

        def command(tx: Tx) -> int:
            book = Book.load(tx, [BUYER, HOST, FEES])
            book.hold(payer=BUYER, amount_uusd=700, job_id=JOB)
            book.settle(job_id=JOB, pays=((HOST, pay, "pay"), (FEES, fee, "fee")), at_ms=5, own_money=own_money)
            book.apply(tx)
            return book.promo_paid_uusd(JOB)

        assert await database.run(command) == sum(parts)

        accounts = await ledger.accounts([BUYER, HOST, FEES])
        assert (accounts[HOST].promo_uusd, accounts[FEES].promo_uusd) == parts
        assert accounts[BUYER].promo_uusd == promo - sum(parts)
        assert accounts[HOST].payable_uusd == pay - parts[0]
        assert [one.promo_uusd for one in (await ledger.statement(HOST)).transfers] == [parts[0]]
        assert await audit(database) == []

    async def test_a_hold_knows_whether_own_money_covers_it_beside_all_others(
        self, ledger: Ledger, database: Database
    ) -> None:
        await make_promotional(database, 400)
        other = new_id()

        await hold(database, 300)
        with pytest.raises(OwnMoneyShort) as refused:
            await hold(database, 301, other, own_money=True)
        await hold(database, 300, other, own_money=True)

        assert (refused.value.needed_uusd, refused.value.free_uusd) == (301, 300)
        assert [await ledger.holds_own_money(job) for job in (JOB, other, new_id())] == [True, True, False]

    async def test_what_covers_a_hold_is_not_spent_by_others(self, ledger: Ledger, database: Database) -> None:
        await make_promotional(database, 400)
        covered, later = new_id(), new_id()
        await hold(database, 600, covered, own_money=True)
        await hold(database, 400, later)

        await settle(database, (HOST, 400, "pay"), job_id=later)
        await settle(database, (HOST, 600, "pay"), job_id=covered, own_money=True)

        newest, older = (await ledger.statement(HOST)).transfers
        assert (older.promo_uusd, newest.promo_uusd) == (400, 0)

    async def test_they_never_leave(self, ledger: Ledger, database: Database) -> None:
        await make_promotional(database, 400)
        await hold(database, 100)

        def pay_out(amount_uusd: int) -> Callable[[Tx], None]:
            def command(tx: Tx) -> None:
                book = Book.load(tx, [BUYER, PAYMENTS_IN])
                book.move(debit=BUYER, credit=PAYMENTS_IN, amount_uusd=amount_uusd, kind="payout", job_id=None, at_ms=1)
                book.apply(tx)

            return command

        payable = (await ledger.account(BUYER)).payable_uusd
        with pytest.raises(OwnMoneyShort) as refused:
            await database.run(pay_out(payable + 1))
        await database.run(pay_out(payable))

        assert (payable, refused.value.free_uusd) == (500, 500)
        account = await ledger.account(BUYER)
        assert (account.balance_uusd, account.promo_uusd, account.payable_uusd) == (500, 400, 0)
        assert await audit(database) == []

    async def test_own_money_alone_can_be_moved(self, ledger: Ledger, database: Database) -> None:
        await make_promotional(database, 400)

        def command(tx: Tx, amount_uusd: int, own_money: bool) -> None:
            book = Book.load(tx, [BUYER, HOST])
            book.move(
                debit=BUYER, credit=HOST, amount_uusd=amount_uusd, kind="x", job_id=None, at_ms=1, own_money=own_money
            )
            book.apply(tx)

        with pytest.raises(OwnMoneyShort):
            await database.run(lambda tx: command(tx, 601, True))
        await database.run(lambda tx: command(tx, 500, True))
        assert (await ledger.account(HOST)).promo_uusd == 0
        await database.run(lambda tx: command(tx, 500, False))

        assert (await ledger.account(HOST)).promo_uusd == 400
        assert (await ledger.account(HOST)).payable_uusd == 600

    async def test_what_an_older_coordinator_spent_is_written_off(self, ledger: Ledger, database: Database) -> None:
        """It knows no promotions, so it may leave more of them than there is in the account."""
        await make_promotional(database, 400)
        await database.run(spend_as_before)

        account = await ledger.account(BUYER)
        assert (account.balance_uusd, account.promo_uusd, account.payable_uusd) == (300, 300, 0)
        assert await audit(database) == []
        await ledger.deposit(owner_id=BUYER, amount_uusd=50)

        account = await ledger.account(BUYER)
        assert (account.balance_uusd, account.promo_uusd, account.payable_uusd) == (350, 300, 50)
        assert await database.fetch("SELECT account_id, amount_uusd FROM promo_corrections") == [(BUYER, -100)]
        assert await audit(database) == []


def spend_as_before(tx: Tx) -> None:
    """Pay the host 700 as a coordinator does that knows no promotions."""
    tx.execute("UPDATE accounts SET balance_uusd = balance_uusd - 700 WHERE id = ?", [BUYER])
    tx.execute("UPDATE accounts SET balance_uusd = balance_uusd + 700 WHERE id = ?", [HOST])
    tx.execute(
        "INSERT INTO transfers (id, debit_id, credit_id, amount_uusd, kind, created_ms) VALUES (?, ?, ?, 700, 'pay', 1)",
        [new_id(), BUYER, HOST],
    )


class TestStatement:
    async def test_newest_first_page_by_page(self, ledger: Ledger) -> None:
        for amount in (1, 2, 3, 4):
            await ledger.deposit(owner_id=BUYER, amount_uusd=amount)

        first = await ledger.statement(BUYER, limit=3)
        second = await ledger.statement(BUYER, limit=3, before=first.transfers[-1].id)

        assert [one.amount_uusd for one in first.transfers] == [4, 3, 2]
        assert [one.amount_uusd for one in second.transfers] == [1, 1000]
        assert first.account.balance_uusd == 1010

    async def test_it_shows_both_sides(self, ledger: Ledger, database: Database) -> None:
        await hold(database, 700)
        await settle(database, (HOST, 440, "pay"))

        (paid,) = (await ledger.statement(HOST)).transfers

        assert (paid.debit_id, paid.credit_id, paid.kind, paid.job_id) == (BUYER, HOST, "pay", JOB)


CORRUPTIONS = [
    ("UPDATE accounts SET balance_uusd = balance_uusd + 5 WHERE kind = 'buyer'", {"balance", "sum"}),
    ("UPDATE accounts SET held_uusd = 5 WHERE kind = 'buyer'", {"held"}),
    ("UPDATE accounts SET held_uusd = 5000 WHERE kind = 'buyer'", {"held", "overdrawn"}),
    ("UPDATE transfers SET amount_uusd = 1001 WHERE kind = 'deposit'", {"balance"}),
    ("UPDATE holds SET settled_uusd = 441", {"settled"}),
    ("UPDATE accounts SET promo_uusd = 5 WHERE kind = 'buyer'", {"promotional"}),
    (
        "UPDATE accounts SET promo_uusd = 561 WHERE kind = 'buyer'",
        {"promotional", "promotional above the balance"},
    ),
    (
        "UPDATE accounts SET promo_uusd = -1 WHERE kind = 'host'",
        {"promotional", "promotional above the balance"},
    ),
    (
        "UPDATE transfers SET promo_uusd = 441 WHERE kind = 'pay'",
        {"promotional", "promotional above the transfer"},
    ),
    (
        "UPDATE transfers SET promo_uusd = -1 WHERE kind = 'pay'",
        {"promotional", "promotional above the transfer"},
    ),
]


class TestAudit:
    @pytest.mark.parametrize(("sql", "wanted"), CORRUPTIONS)
    async def test_each_corruption_is_named(
        self, ledger: Ledger, database: Database, sql: str, wanted: set[str]
    ) -> None:
        await hold(database, 700)
        await settle(database, (HOST, 440, "pay"))
        assert await audit(database) == []

        await database.run(lambda tx: tx.execute(sql))

        assert {one.what for one in await audit(database)} == wanted

    async def test_it_names_whom_and_both_figures(self, ledger: Ledger, database: Database) -> None:
        await database.run(lambda tx: tx.execute("UPDATE accounts SET held_uusd = 5 WHERE kind = 'buyer'"))

        assert await audit(database) == [LedgerDifference("held", BUYER.hex(), 5, 0)]
