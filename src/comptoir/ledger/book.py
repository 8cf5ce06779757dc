"""The book of one batch: balances loaded once, changed in memory, written back as net changes.

`Book.load` reads the accounts and holds that a batch touches; `hold`, `settle` and `move` check and record; `apply`
writes one multi-row statement per table. A refused item changes nothing in the book.
"""

from collections.abc import Iterable

from comptoir.kit.db import Table, Tx
from comptoir.kit.ids import new_id
from comptoir.ledger.errors import HoldMismatch, InsufficientCredit, UnknownAccount
from comptoir.ledger.tables import ACCOUNTS, HOLDS, TRANSFERS
from comptoir.ledger.types import HoldState

COLUMNS = ("id", "kind", "balance_uusd", "held_uusd", "last_event")
CHANGED = ("balance_uusd", "held_uusd", "last_event")
OPERATOR_KINDS_THAT_MAY_OWE = ("payments_in", "promotions")


def account_rows(accounts: Iterable[bytes]) -> tuple[Table, Iterable[bytes]]:
    """Return the rows that `Book.load` locks, for a verb to declare."""
    return ACCOUNTS, accounts


class _AccountEntry:
    __slots__ = ("balance", "held", "kind", "last_event", "moved", "numbered", "set_aside")

    def __init__(self, kind: str, balance: int, held: int, last_event: int) -> None:
        self.kind = kind
        self.balance = balance
        self.held = held
        self.last_event = last_event
        self.moved = 0
        self.set_aside = 0
        self.numbered = 0


class Book:
    """Balances and holds of one batch; amounts are micro-dollars >= 0."""

    def __init__(self) -> None:
        self._entries: dict[bytes, _AccountEntry] = {}
        self._holds: dict[bytes, tuple[bytes, int, str]] = {}
        self._new_holds: dict[bytes, tuple[bytes, bytes, int, int, str]] = {}
        self._closed: dict[bytes, tuple[bytes, str, int]] = {}
        self._transfers: list[tuple[bytes, bytes, bytes, int, str, bytes | None, int]] = []

    @classmethod
    def load(cls, tx: Tx, accounts: Iterable[bytes], holds: Iterable[bytes] = ()) -> "Book":
        """Read and lock the accounts, and read the holds (by job id) that the batch may touch.

        A hold is protected by the lock on its payer's account: to open or close it, load that account as well.
        """
        book = cls()
        wanted = list(set(accounts))
        for key, kind, balance, held, last_event in tx.select(ACCOUNTS, COLUMNS, wanted, lock=True):
            book._entries[key] = _AccountEntry(kind, balance, held, last_event or 0)
        jobs = list(set(holds))
        for job, account, amount, state in tx.select(HOLDS, ("job_id", "account_id", "amount_uusd", "state"), jobs):
            book._holds[job] = (account, amount, state)
        return book

    def _entry(self, account: bytes) -> _AccountEntry:
        line = self._entries.get(account)
        if line is None:
            raise UnknownAccount("no such account")
        return line

    def free_uusd(self, account: bytes) -> int:
        """Return what *account* can spend now.

        Raises:
            UnknownAccount: not loaded or never opened.
        """
        line = self._entry(account)
        return line.balance - line.held

    def balance_uusd(self, account: bytes) -> int:
        """Return the balance of *account* as of now in this book."""
        return self._entry(account).balance

    def hold(self, *, payer: bytes, amount_uusd: int, job_id: bytes) -> None:
        """Reserve *amount_uusd* of the payer's free credit for one job; zero for a free model.

        Idempotent: the same (job, payer, amount) again changes nothing.

        Raises:
            UnknownAccount: the payer has no account.
            HoldMismatch: the job already holds something else.
            InsufficientCredit: free credit is below *amount_uusd*.
        """
        assert amount_uusd >= 0
        line = self._entry(payer)
        known = self._holds.get(job_id)
        if known is not None:
            if known != (payer, amount_uusd, HoldState.OPEN):
                raise HoldMismatch("the job already holds another amount")
            return
        free = line.balance - line.held
        if amount_uusd > free:
            raise InsufficientCredit(needed_uusd=amount_uusd, free_uusd=free)
        line.held += amount_uusd
        line.set_aside += amount_uusd
        self._holds[job_id] = (payer, amount_uusd, HoldState.OPEN)
        self._new_holds[job_id] = (job_id, payer, amount_uusd, 0, HoldState.OPEN)

    def settle(self, *, job_id: bytes, pays: tuple[tuple[bytes, int, str], ...], at_ms: int) -> tuple[bytes, ...]:
        """Close the job's hold: pay each (account, amount, kind), release the rest. Return the transfer ids.

        With no pays, or only zero amounts, the whole hold is released.

        Raises:
            HoldMismatch: no open hold, or the pays exceed the hold.
            UnknownAccount: one of the payees has no account.
        """
        payer, amount, state = self._holds.get(job_id, (b"", 0, ""))
        if state != HoldState.OPEN:
            raise HoldMismatch(f"the job's hold is {state or 'missing'}")
        total = sum(pay for _, pay, _ in pays)
        if total > amount:
            raise HoldMismatch(f"{total} is more than the {amount} held")
        for account, pay, _ in pays:
            assert pay >= 0
            self._entry(account)
        line = self._entry(payer)
        assert line.held >= amount, "an open hold is part of what is held"
        line.held -= amount
        line.set_aside -= amount
        done = HoldState.SETTLED if total else HoldState.RELEASED
        self._holds[job_id] = (payer, amount, done)
        if job_id in self._new_holds:
            self._new_holds[job_id] = (job_id, payer, amount, total, done)
        else:
            self._closed[job_id] = (job_id, done, total)
        return tuple(
            self.move(debit=payer, credit=account, amount_uusd=pay, kind=kind, job_id=job_id, at_ms=at_ms)
            for account, pay, kind in pays
            if pay
        )

    def move(
        self,
        *,
        debit: bytes,
        credit: bytes,
        amount_uusd: int,
        kind: str,
        job_id: bytes | None,
        at_ms: int,
        transfer_id: bytes | None = None,
    ) -> bytes:
        """Move *amount_uusd* (> 0) between two accounts; return the transfer's id, a new one unless given.

        Raises:
            UnknownAccount: one of them has no account.
            InsufficientCredit: a buyer's or host's free credit is below the amount.
        """
        assert amount_uusd > 0
        giver, taker = self._entry(debit), self._entry(credit)
        if giver.kind not in OPERATOR_KINDS_THAT_MAY_OWE and giver.balance - giver.held < amount_uusd:
            raise InsufficientCredit(needed_uusd=amount_uusd, free_uusd=giver.balance - giver.held)
        giver.balance -= amount_uusd
        giver.moved -= amount_uusd
        taker.balance += amount_uusd
        taker.moved += amount_uusd
        transfer = transfer_id or new_id()
        self._transfers.append((transfer, debit, credit, amount_uusd, kind, job_id, at_ms))
        return transfer

    def number(self, account: bytes) -> int:
        """Count one more event of the account's owner (`comptoir.events`), and return its number.

        The account is locked until the commit, so numbers have no gaps, and a higher one is never visible before a
        lower one.
        """
        line = self._entry(account)
        line.last_event += 1
        line.numbered += 1
        return line.last_event

    def apply(self, tx: Tx) -> None:
        """Write everything recorded; call it once, last."""
        assert sum(line.moved for line in self._entries.values()) == 0, "transfers must sum to zero"
        if self._new_holds:
            tx.insert(HOLDS, list(self._new_holds.values()))
        if self._closed:
            touched = tx.update(HOLDS, ("state", "settled_uusd"), list(self._closed.values()))
            assert touched == len(self._closed), "a hold vanished"
        if self._transfers:
            tx.insert(TRANSFERS, self._transfers)
        changes = [
            (key, line.moved, line.set_aside, line.numbered)
            for key, line in self._entries.items()
            if line.moved or line.set_aside or line.numbered
        ]
        if changes:
            touched = tx.add(ACCOUNTS, CHANGED, changes)
            assert touched == len(changes), "an account vanished"
