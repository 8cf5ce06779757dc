"""The ledger's service: open accounts, deposit, read balances and statements."""

from collections.abc import Collection, Sequence
from typing import Any

from comptoir.events import CreditAdded, EventHub, Events
from comptoir.kit.clock import Clock
from comptoir.kit.db import Database, Fetch, Tx, despite_loss
from comptoir.kit.ids import oldest_id
from comptoir.kit.money import AMOUNT_UUSD_MAX
from comptoir.ledger.book import Book, account_rows, posted_transfers
from comptoir.ledger.errors import LedgerRefusal, UnknownAccount
from comptoir.ledger.tables import ACCOUNTS, HOLDS, TRANSFERS
from comptoir.ledger.types import (
    FEES,
    OPERATOR_ACCOUNTS,
    PAYMENTS_IN,
    PROMOTIONS,
    Account,
    AccountStatement,
    Transfer,
    fee_account,
)

STATEMENT_TRANSFERS_MAX = 1000
"""Most transfers of one page of a statement."""

BOND_KINDS = ("bond", "bond_back", "forfeit")
"""Kinds of transfers that a bond's row goes with."""

SHOWN = ("id", "kind", "balance_uusd", "held_uusd", "promo_uusd")


def _account(row: tuple[Any, ...]) -> Account:
    account_id, kind, balance, held, promo = row
    # Above the balance is what an older coordinator spent; the next command that loads the account writes it off.
    return Account(account_id, kind, balance, held, max(0, min(promo or 0, balance)))


class Ledger:
    """Accounts by owner id. Reads see committed data."""

    def __init__(self, db: Database, clock: Clock, *, events: EventHub | None = None) -> None:
        self._db = db
        self._clock = clock
        self._events = events or EventHub()
        self.own_fees = FEES
        """Account that this coordinator books fees to (`fee_account` of its slot)."""

    async def open_operator_accounts(self, *, fee_slot: int = 0) -> None:
        """Open the operator's accounts, including the fee account of *fee_slot*; idempotent."""
        now = self._clock.now_ms()
        self.own_fees = fee_account(fee_slot)
        kinds = {**OPERATOR_ACCOUNTS, self.own_fees: OPERATOR_ACCOUNTS[FEES]}
        rows = [(key, kind, 0, 0, now, None, 0, None) for key, kind in kinds.items()]
        await self._db.run(lambda tx: tx.insert(ACCOUNTS, rows, ignore_conflicts=True))

    def open_account(self, tx: Tx, *, owner_id: bytes, kind: str, at_ms: int) -> None:
        """Open an empty account inside the caller's command; idempotent."""
        tx.insert(ACCOUNTS, [(owner_id, kind, 0, 0, at_ms, None, 0, None)], ignore_conflicts=True)

    def signups_since(self, tx: Tx, since_ms: int, *, most: int) -> int:
        """Return how many users got sign-up credit since *since_ms*, counted up to *most*.

        Exact over all coordinators if the account of promotions is locked (`Book.load`): each of them moves from it.
        """
        sql = "SELECT COUNT(*) FROM (SELECT id FROM transfers WHERE debit_id = ? AND id >= ? AND kind = 'signup' LIMIT ?) t"
        ((count,),) = tx.fetch(sql, [PROMOTIONS, oldest_id(since_ms), most])
        return int(count)

    async def signup_credit_uusd(self, owner_id: bytes) -> int:
        """Return what a user was given at sign-up."""
        sql = "SELECT COALESCE(SUM(amount_uusd), 0) FROM transfers WHERE credit_id = ? AND debit_id = ? AND kind = 'signup'"
        ((given,),) = await self._db.fetch(sql, [owner_id, PROMOTIONS])
        return int(given)

    async def account(self, owner_id: bytes) -> Account:
        """Return the account of *owner_id*.

        Raises:
            UnknownAccount: there is none.
        """
        row = await self._db.fetch_point(ACCOUNTS, SHOWN, (owner_id,))
        if row is None:
            raise UnknownAccount("no such account")
        return _account(row)

    async def accounts(self, owner_ids: list[bytes]) -> dict[bytes, Account]:
        """Return those accounts of *owner_ids* (at most 1,000) that exist, by owner."""
        return {row[0]: _account(row) for row in await self._db.fetch_keys(ACCOUNTS, SHOWN, owner_ids)}

    async def holds_own_money(self, job_id: bytes) -> bool:
        """Tell whether the payer's own money covered the job's hold, so that it needs no promotional credit."""
        row = await self._db.fetch_point(HOLDS, ("own_money",), (job_id,))
        return row is not None and bool(row[0])

    @staticmethod
    def ask_for_events(tx: Tx, owner_id: bytes, bits: int) -> None:
        """Note which events on request (`events.ON_REQUEST`) an owner asks for; the caller has the account's lock."""
        tx.update(ACCOUNTS, ("asked_events",), [(owner_id, bits or None)])

    async def asked_events(self, owner_ids: Collection[bytes]) -> dict[bytes, int]:
        """Return the bits of those of *owner_ids* (at most 1,000) that ask for events on request."""
        rows = await self._db.fetch_keys(ACCOUNTS, ("id", "asked_events"), list(owner_ids))
        return {bytes(owner_id): bits for owner_id, bits in rows if bits}

    async def deposit(
        self, *, owner_id: bytes, amount_uusd: int, kind: str = "deposit", transfer_id: bytes | None = None
    ) -> bytes:
        """Credit *amount_uusd* (1..10**15) from payments-in; return the transfer id.

        Idempotent by *transfer_id* (which an Idempotency-Key is bound to): a posted transfer is not posted again.

        Raises:
            UnknownAccount: the owner has no account; nothing is written.
        """
        assert 0 < amount_uusd <= AMOUNT_UUSD_MAX
        now = self._clock.now_ms()

        def command(tx: Tx) -> CreditAdded | None:
            # Lock the accounts first: if another coordinator is posting the same transfer, this waits and then sees it.
            book = Book.load(tx, (owner_id, PAYMENTS_IN))
            if transfer_id is not None and tx.select(TRANSFERS, ("id",), [transfer_id]):
                return None
            transfer = book.move(
                debit=PAYMENTS_IN,
                credit=owner_id,
                amount_uusd=amount_uusd,
                kind=kind,
                job_id=None,
                at_ms=now,
                transfer_id=transfer_id,
            )
            added = CreditAdded(owner_id, now, book.number(owner_id), transfer, amount_uusd, kind)
            book.apply(tx)
            Events.insert_rows(tx, [added])
            return added

        added = await self._db.run(command, locks=[account_rows((owner_id, PAYMENTS_IN))])
        if added is None:
            assert transfer_id is not None
            return transfer_id
        self._events.publish(added)
        return added.transfer_id

    async def allow(self, owner_id: bytes, *, most_uusd: int, since_ms: int) -> int:
        """Top an account up from promotions so that its balance plus what it spent since *since_ms* is *most_uusd*.

        Returns what is left to spend. If it has more, because *most_uusd* was higher before, the excess goes back as
        far as it is free. Idempotent, and exact however often and wherever it is called, because the amount spent is
        summed from the transfers each time.

        Raises:
            UnknownAccount: the owner has no account; nothing is written.
        """
        assert 0 <= most_uusd <= AMOUNT_UUSD_MAX
        now, kind = self._clock.now_ms(), "allowance"

        def command(tx: Tx) -> int:
            book = Book.load(tx, (owner_id, PROMOTIONS))
            sql = "SELECT COALESCE(SUM(amount_uusd), 0) FROM transfers WHERE debit_id = ? AND id >= ? AND kind <> ?"
            ((spent,),) = tx.fetch(sql, [owner_id, oldest_id(since_ms), kind])
            missing = most_uusd - int(spent) - book.balance_uusd(owner_id)
            giver, taker, amount = PROMOTIONS, owner_id, missing
            if missing < 0:
                giver, taker, amount = owner_id, PROMOTIONS, min(-missing, book.free_uusd(owner_id))
            if amount > 0:
                book.move(debit=giver, credit=taker, amount_uusd=amount, kind=kind, job_id=None, at_ms=now)
                book.apply(tx)
            return book.free_uusd(owner_id)

        return await self._db.run(command, locks=[account_rows((owner_id, PROMOTIONS))])

    async def posted(self, transfer_ids: list[bytes]) -> set[bytes]:
        """Return those of *transfer_ids* (at most 1,000) that are posted."""
        return {bytes(row[0]) for row in await self._db.fetch_keys(TRANSFERS, ("id",), transfer_ids)}

    async def post_again(self, transfers: Sequence[Transfer]) -> set[bytes]:
        """Post *transfers* (at most 1,000, of no job, oldest first) that the database lost; return which are posted.

        Idempotent: each has its id. Left out are those between accounts that are gone, those that the giver's credit no
        longer covers, and bonds, whose hosts are not here.
        """

        def command(tx: Tx) -> list[CreditAdded]:
            book = Book.load(tx, accounts)
            known = posted_transfers(tx, [each.id for each in transfers])
            added = []
            for each in transfers:
                if each.id in known or each.kind in BOND_KINDS:
                    continue
                try:
                    book.move(
                        debit=each.debit_id, credit=each.credit_id, amount_uusd=each.amount_uusd, kind=each.kind,
                        job_id=None, at_ms=each.created_ms, transfer_id=each.id,
                    )  # fmt: skip
                except LedgerRefusal:
                    continue
                if each.debit_id == PAYMENTS_IN:
                    number = book.number(each.credit_id)
                    added.append(
                        CreditAdded(each.credit_id, each.created_ms, number, each.id, each.amount_uusd, each.kind)
                    )
            book.apply(tx)
            Events.insert_rows(tx, added)
            return added

        accounts = {account for each in transfers for account in (each.debit_id, each.credit_id)}
        with despite_loss():
            added = await self._db.run(command, locks=[account_rows(accounts)])
        for event in added:
            self._events.publish(event)
        return await self.posted([each.id for each in transfers])

    async def statement(self, owner_id: bytes, *, limit: int = 50, before: bytes | None = None) -> AccountStatement:
        """Return the account and its newest transfers, newest first; *before* pages by transfer id.

        Raises:
            UnknownAccount: the owner has no account.
        """
        limit = min(limit, STATEMENT_TRANSFERS_MAX)
        edge = before or b"\xff" * 16
        half = ",".join(TRANSFERS.names)

        def look(fetch: Fetch) -> AccountStatement:
            found = fetch(f"SELECT {','.join(SHOWN)} FROM accounts WHERE id = ?", [owner_id])
            if not found:
                raise UnknownAccount("no such account")
            rows: list[tuple[Any, ...]] = []
            for side in ("debit_id", "credit_id"):
                sql = f"SELECT {half} FROM transfers WHERE {side} = ? AND id < ? ORDER BY id DESC LIMIT {limit}"
                rows += fetch(sql, [owner_id, edge])
            rows.sort(key=lambda row: bytes(row[0]), reverse=True)
            return AccountStatement(_account(found[0]), [Transfer(*row) for row in rows[:limit]])

        return await self._db.fetch_snapshot(look, of=owner_id)
