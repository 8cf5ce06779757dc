"""The book against a model of twenty lines: whatever is asked in whatever order, both say the same."""

import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from comptoir.kit.db import ddl
from comptoir.kit.db.postgres import PostgresTx, connect
from comptoir.kit.db.sqlite import SqliteTx
from comptoir.ledger import FEES, PAYMENTS_IN, TABLES, Book, HoldMismatch, InsufficientCredit, LedgerRefusal
from comptoir.ledger.tables import ACCOUNTS

BUYERS = [bytes([65 + n]) * 16 for n in range(3)]
HOST = b"h" * 16
JOBS = [bytes([n]) * 16 for n in range(1, 9)]
AMOUNTS = st.integers(0, 60)


class Model:
    """What a ledger is, said as plainly as possible."""

    def __init__(self) -> None:
        self.balance = dict.fromkeys([*BUYERS, HOST, FEES, PAYMENTS_IN], 0)
        self.open: dict[bytes, tuple[bytes, int]] = {}
        self.closed: dict[bytes, int] = {}

    def free(self, buyer: bytes) -> int:
        return self.balance[buyer] - sum(amount for payer, amount in self.open.values() if payer == buyer)

    def move(self, giver: bytes, taker: bytes, amount: int) -> None:
        self.balance[giver] -= amount
        self.balance[taker] += amount

    def hold(self, buyer: bytes, job: bytes, amount: int) -> type[Exception] | None:
        if job in self.closed or self.open.get(job, (buyer, amount)) != (buyer, amount):
            return HoldMismatch
        if job in self.open:
            return None
        if amount > self.free(buyer):
            return InsufficientCredit
        self.open[job] = (buyer, amount)
        return None

    def settle(self, job: bytes, pay: int, fee: int) -> type[Exception] | None:
        if job not in self.open or pay + fee > self.open[job][1]:
            return HoldMismatch
        payer, _ = self.open.pop(job)
        self.closed[job] = pay + fee
        self.move(payer, HOST, pay)
        self.move(payer, FEES, fee)
        return None


class BookMachine(RuleBasedStateMachine):
    """One book after another over one database; each is a batch of one to many steps, written when it is closed."""

    open_tx: Callable[[], Any]

    def __init__(self) -> None:
        super().__init__()
        self.tx = type(self).open_tx()
        self.model = Model()
        kinds = {HOST: "host", FEES: "fees", PAYMENTS_IN: "payments_in"}
        self.tx.insert(ACCOUNTS, [(key, kinds.get(key, "buyer"), 0, 0, 1) for key in self.model.balance])
        self.book = self.fresh()

    def fresh(self) -> Book:
        return Book.load(self.tx, self.model.balance, JOBS)

    @rule(buyer=st.sampled_from(BUYERS), amount=st.integers(1, 100))
    def deposit(self, buyer: bytes, amount: int) -> None:
        self.book.move(debit=PAYMENTS_IN, credit=buyer, amount_uusd=amount, kind="deposit", job_id=None, at_ms=1)
        self.model.move(PAYMENTS_IN, buyer, amount)

    @rule(giver=st.sampled_from(BUYERS), amount=st.integers(1, 100))
    def refund(self, giver: bytes, amount: int) -> None:
        with contextlib.ExitStack() as stack:
            if amount > self.model.free(giver):
                stack.enter_context(pytest.raises(InsufficientCredit))
            else:
                self.model.move(giver, PAYMENTS_IN, amount)
            self.book.move(debit=giver, credit=PAYMENTS_IN, amount_uusd=amount, kind="refund", job_id=None, at_ms=1)

    @rule(buyer=st.sampled_from(BUYERS), job=st.sampled_from(JOBS), amount=AMOUNTS)
    def hold(self, buyer: bytes, job: bytes, amount: int) -> None:
        wanted = self.model.hold(buyer, job, amount)
        said = None
        try:
            self.book.hold(payer=buyer, amount_uusd=amount, job_id=job)
        except LedgerRefusal as refusal:
            said = type(refusal)
        assert said is wanted

    @rule(job=st.sampled_from(JOBS), pay=AMOUNTS, fee=st.integers(0, 10))
    def settle(self, job: bytes, pay: int, fee: int) -> None:
        wanted = self.model.settle(job, pay, fee)
        said = None
        try:
            transfers = self.book.settle(job_id=job, pays=((HOST, pay, "pay"), (FEES, fee, "fee")), at_ms=1)
            assert len(transfers) == (pay > 0) + (fee > 0)
        except LedgerRefusal as refusal:
            said = type(refusal)
        assert said is wanted

    @precondition(lambda self: self.model.open)
    @rule(data=st.data())
    def settle_all_of_a_hold(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.model.open)))
        self.settle(job, self.model.open[job][1], 0)

    @rule()
    def write(self) -> None:
        self.book.apply(self.tx)
        self.book = self.fresh()
        stored = {
            bytes(row[0]): (row[1], row[2]) for row in self.tx.fetch("SELECT id, balance_uusd, held_uusd FROM accounts")
        }
        held = {key: balance - self.model.free(key) for key, balance in self.model.balance.items()}
        assert stored == {key: (balance, held[key]) for key, balance in self.model.balance.items()}
        holds = {
            bytes(row[0]): row[1:]
            for row in self.tx.fetch("SELECT job_id, state, amount_uusd, settled_uusd FROM holds")
        }
        assert {job: row[1] for job, row in holds.items() if row[0] == "open"} == {
            job: amount for job, (_, amount) in self.model.open.items()
        }
        assert {job: row[2] for job, row in holds.items() if row[0] != "open"} == self.model.closed

    @invariant()
    def the_book_says_what_the_model_says(self) -> None:
        for key, balance in self.model.balance.items():
            assert self.book.balance_uusd(key) == balance
            assert self.book.free_uusd(key) == self.model.free(key)

    def teardown(self) -> None:
        self.write()


def check(machine: type[BookMachine], *, examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=40, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


class TestBook:
    def test_it_agrees_with_the_model_on_sqlite(self) -> None:
        opened: list[sqlite3.Connection] = []

        def open_tx() -> SqliteTx:
            opened.append(sqlite3.connect(":memory:", isolation_level=None))
            for table in TABLES:
                for statement in ddl(table, "sqlite"):
                    opened[-1].execute(statement)
            return SqliteTx(opened[-1])

        check(type("OnSqlite", (BookMachine,), {"open_tx": staticmethod(open_tx)}), examples=60)
        for connection in opened:
            connection.close()

    def test_it_agrees_with_the_model_on_postgresql(self, postgres_address: str) -> None:
        connection: psycopg.Connection[Any] = connect(postgres_address)
        for table in TABLES:
            for statement in ddl(table, "postgresql"):
                connection.execute(statement)

        def open_tx() -> PostgresTx:
            connection.execute("TRUNCATE accounts, transfers, holds")
            return PostgresTx(connection)

        check(type("OnPostgres", (BookMachine,), {"open_tx": staticmethod(open_tx)}), examples=20)
        connection.close()

    def test_a_wrong_book_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The model must be able to disagree: a book that forgets to give back the rest is caught."""
        settle = Book.settle

        def stingy(self: Book, **named: Any) -> tuple[bytes, ...]:
            done = settle(self, **named)
            for line in self._lines.values():
                line.held += line.kind == "buyer"
            return done

        monkeypatch.setattr(Book, "settle", stingy)
        connection = sqlite3.connect(":memory:", isolation_level=None)

        def open_tx() -> SqliteTx:
            for table in TABLES:
                connection.execute(f"DROP TABLE IF EXISTS {table.name}")
                for statement in ddl(table, "sqlite"):
                    connection.execute(statement)
            return SqliteTx(connection)

        with pytest.raises(AssertionError):
            check(type("Wrong", (BookMachine,), {"open_tx": staticmethod(open_tx)}), examples=60)
        connection.close()
