"""The book of one batch: balances loaded once, changed in memory, written back as net changes.

`Book.load` reads the accounts and holds that a batch touches; `hold`, `settle` and `move` check and record; `apply`
writes one multi-row statement per table. A refused item changes nothing in the book.

Part of a balance may be promotional (`_AccountEntry.promo`). It is spent first, stays promotional wherever it goes, and
never leaves. A hold that the payer's own money covered when it was made (``own_money``) can be settled without it.
"""

from collections.abc import Iterable, Sequence

from comptoir.kit.db import Table, Tx
from comptoir.kit.ids import new_id
from comptoir.ledger.errors import HoldMismatch, InsufficientCredit, OwnMoneyShort, UnknownAccount
from comptoir.ledger.notes import transfer_note
from comptoir.ledger.tables import ACCOUNTS, HOLDS, PROMO_CORRECTIONS, TRANSFERS
from comptoir.ledger.types import HoldState

COLUMNS = ("id", "kind", "balance_uusd", "held_uusd", "last_event", "promo_uusd", "asked_events")
CHANGED = ("balance_uusd", "held_uusd", "last_event", "promo_uusd")
HOLD_COLUMNS = ("job_id", "account_id", "amount_uusd", "state", "own_money")
OPEN, SETTLED, RELEASED = HoldState.OPEN.value, HoldState.SETTLED.value, HoldState.RELEASED.value
"""As they are bound: for a member of an enum sqlite3 looks in vain for an adapter, which takes 0.5 us."""
PAYMENTS_IN_KIND, PROMOTIONS_KIND = "payments_in", "promotions"
OPERATOR_KINDS_THAT_MAY_OWE = (PAYMENTS_IN_KIND, PROMOTIONS_KIND)


def account_rows(accounts: Iterable[bytes]) -> tuple[Table, Iterable[bytes]]:
    """Return the rows that `Book.load` locks, for a verb to declare."""
    return ACCOUNTS, accounts


def posted_transfers(tx: Tx, transfer_ids: Sequence[bytes]) -> set[bytes]:
    """Return those of *transfer_ids* that are posted."""
    return {bytes(row[0]) for row in tx.select(TRANSFERS, ("id",), transfer_ids)}


class _AccountEntry:
    __slots__ = (
        "account", "asked", "balance", "held", "kind", "last_event", "moved", "numbered", "promo", "promo_moved", "set_aside",
    )  # fmt: skip

    def __init__(
        self, account: bytes, kind: str, balance: int, *, held: int, last_event: int, promo: int, asked: int
    ) -> None:
        self.account = account
        self.kind = kind
        self.asked = asked
        self.balance = balance
        self.held = held
        self.last_event = last_event
        self.promo = promo
        self.promo_moved = 0
        self.moved = 0
        self.set_aside = 0
        self.numbered = 0


class Book:
    """Balances and holds of one batch; amounts are micro-dollars >= 0."""

    def __init__(self) -> None:
        self._entries: dict[bytes, _AccountEntry] = {}
        self._holds: dict[bytes, tuple[bytes, int, str]] = {}
        self._own_money: set[bytes] = set()
        self._new_holds: dict[bytes, tuple[bytes, bytes, int, int, str, int]] = {}
        self._closed: dict[bytes, tuple[bytes, str, int]] = {}
        self._grown: dict[bytes, tuple[int, int]] = {}
        self._transfers: list[tuple[bytes, bytes, bytes, int, str, bytes | None, int, int]] = []
        self._corrections: list[tuple[bytes, bytes, int]] = []
        self._promo_of: dict[bytes, int] = {}

    @classmethod
    def load(cls, tx: Tx, accounts: Iterable[bytes], holds: Iterable[bytes] = ()) -> "Book":
        """Read and lock the accounts, and read the holds (by job id) that the batch may touch.

        A hold is protected by the lock on its payer's account: to open or close it, load that account as well.
        """
        book = cls()
        wanted = list(set(accounts))
        for key, kind, balance, held, last, promo, asked in tx.select(ACCOUNTS, COLUMNS, wanted, lock=True):
            book._entries[key] = line = _AccountEntry(
                key, kind, balance, held=held, last_event=last or 0, promo=promo or 0, asked=asked or 0
            )
            if line.promo > balance:
                book._correct(key, line)
        jobs = list(set(holds))
        for job, account, amount, state, own_money in tx.select(HOLDS, HOLD_COLUMNS, jobs):
            book._holds[job] = (account, amount, state)
            if own_money:
                book._own_money.add(job)
        return book

    def _correct(self, account: bytes, line: _AccountEntry) -> None:
        """Note that a coordinator of an older version, which did not keep promotions apart, spent some of them."""
        if line.kind not in OPERATOR_KINDS_THAT_MAY_OWE:
            excess = line.promo - max(0, line.balance)
            line.promo -= excess
            line.promo_moved -= excess
            self._corrections.append((new_id(), account, -excess))

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
        return self.credit_uusd(account)[0]

    def credit_uusd(self, account: bytes) -> tuple[int, int]:
        """Return what *account* can spend now, and the promotional part of its balance; raises as `free_uusd`."""
        line = self._entry(account)
        return line.balance - line.held, line.promo

    def balance_uusd(self, account: bytes) -> int:
        """Return the balance of *account* as of now in this book."""
        return self._entry(account).balance

    def balances_uusd(self, account: bytes) -> tuple[int, int]:
        """Return the balance of *account* as of now in this book, and the promotional part of it."""
        line = self._entry(account)
        return line.balance, line.promo

    def promo_paid_uusd(self, job_id: bytes) -> int:
        """Return how much of what the job's settlement in this book cost was promotional."""
        return self._promo_of.get(job_id, 0)

    def hold(self, *, payer: bytes, amount_uusd: int, job_id: bytes, own_money: bool = False) -> None:
        """Reserve *amount_uusd* of the payer's free credit for one job; zero for a free model.

        If the payer's own money covers it beside all other holds, the hold remembers that: it can be settled without
        promotional credit, whatever else is settled before.

        Idempotent: the same (job, payer, amount) again changes nothing.

        Args:
            own_money: refuse unless the payer's own money covers it.

        Raises:
            UnknownAccount: the payer has no account.
            HoldMismatch: the job already holds something else.
            InsufficientCredit: free credit is below *amount_uusd*.
            OwnMoneyShort: free credit that is not promotional is, and *own_money*.
        """
        assert amount_uusd >= 0
        line = self._entry(payer)
        known = self._holds.get(job_id)
        if known is not None:
            if known != (payer, amount_uusd, OPEN):
                raise HoldMismatch("the job already holds another amount")
            return
        free = line.balance - line.held
        if amount_uusd > free:
            raise InsufficientCredit(needed_uusd=amount_uusd, free_uusd=free)
        covered = amount_uusd <= free - line.promo
        if own_money and not covered:
            raise OwnMoneyShort(needed_uusd=amount_uusd, free_uusd=max(0, free - line.promo))
        line.held += amount_uusd
        line.set_aside += amount_uusd
        self._holds[job_id] = (payer, amount_uusd, OPEN)
        if covered:
            self._own_money.add(job_id)
        self._new_holds[job_id] = (job_id, payer, amount_uusd, 0, OPEN, int(covered))

    def reach_uusd(self, job_id: bytes, *, held_uusd: int | None = None, own_money: bool = False) -> int:
        """Return the most that `grow` could raise the job's open hold to now, at least what it is.

        Args:
            held_uusd: what it is taken to be; None: whatever it is.

        Raises:
            HoldMismatch: there is no open hold, or it is not *held_uusd*.
            UnknownAccount: its payer's account was not loaded.
        """
        payer, amount, state = self._holds.get(job_id, (b"", 0, ""))
        if state != OPEN:
            raise HoldMismatch(f"the job's hold is {state or 'missing'}")
        if held_uusd is not None and held_uusd != amount:
            raise HoldMismatch(f"the job holds {amount}, not {held_uusd}")
        line = self._entry(payer)
        free = line.balance - line.held
        if own_money:
            free = free - line.promo if job_id in self._own_money else 0
        return amount + max(0, free)

    def grow(self, *, job_id: bytes, amount_uusd: int, own_money: bool = False) -> bool:
        """Raise the job's open hold to *amount_uusd* of its payer's free credit; one that is as large is left alone.

        Returns whether the payer's own money covers all of it, as `hold` remembers it.

        Args:
            own_money: refuse unless it does.

        Raises (nothing changes):
            HoldMismatch: there is no open hold.
            UnknownAccount: its payer's account was not loaded.
            InsufficientCredit: free credit is below what is missing.
            OwnMoneyShort: free credit that is not promotional is, and *own_money*.
        """
        payer, amount, state = self._holds.get(job_id, (b"", 0, ""))
        if state != OPEN:
            raise HoldMismatch(f"the job's hold is {state or 'missing'}")
        assert job_id not in self._new_holds, "a hold grows in a later command than it was made in"
        line = self._entry(payer)
        more, free = max(0, amount_uusd - amount), line.balance - line.held
        if more > free:
            raise InsufficientCredit(needed_uusd=more, free_uusd=free)
        covered = job_id in self._own_money and (not more or more <= free - line.promo)
        if own_money and not covered:
            raise OwnMoneyShort(needed_uusd=more, free_uusd=max(0, free - line.promo))
        if more:
            line.held += more
            line.set_aside += more
            self._holds[job_id] = (payer, amount_uusd, state)
            if not covered:
                self._own_money.discard(job_id)
            self._grown[job_id] = (amount_uusd, int(covered))
        return covered

    def settle(
        self,
        *,
        job_id: bytes,
        pays: tuple[tuple[bytes, int, str], ...],
        at_ms: int,
        own_money: bool = False,
        transfer_ids: tuple[bytes, ...] = (),
    ) -> tuple[bytes, ...]:
        """Close the job's hold: pay each (account, amount, kind), release the rest. Return the transfer ids.

        Promotional credit is spent first; if it is not enough, each pay has its share of it. With no pays, or only zero
        amounts, the whole hold is released.

        Args:
            own_money: spend promotional credit last, if the payer's own money covered the hold.
            transfer_ids: of the pays that are not zero; by default new ones.

        Raises:
            HoldMismatch: no open hold, or the pays exceed the hold.
            UnknownAccount: one of the payees has no account.
        """
        payer, amount, state = self._holds.get(job_id, (b"", 0, ""))
        if state != OPEN:
            raise HoldMismatch(f"the job's hold is {state or 'missing'}")
        total = sum([pay for _, pay, _ in pays])
        if total > amount:
            raise HoldMismatch(f"{total} is more than the {amount} held")
        payees = [self._entry(account) for account, _, _ in pays]
        line = self._entry(payer)
        assert line.held >= amount, "an open hold is part of what is held"
        line.held -= amount
        line.set_aside -= amount
        done = SETTLED if total else RELEASED
        self._holds[job_id] = (payer, amount, done)
        if job_id in self._new_holds:
            covered = self._new_holds[job_id][-1]
            self._new_holds[job_id] = (job_id, payer, amount, total, done, covered)
        else:
            self._closed[job_id] = (job_id, done, total)
        promo = self._promo_spent(line, total, own_money=own_money and job_id in self._own_money)
        if promo:
            self._promo_of[job_id] = promo
        transfers: list[bytes] = []
        paid = given = 0
        for payee, (_, pay, kind) in zip(payees, pays, strict=True):
            assert pay >= 0
            if pay:
                paid += pay
                # Of the sum so far, rounded down: no pay has more than its amount, and the last completes the sum.
                part = promo * paid // total - given if promo else 0
                given += part
                stated = transfer_ids[len(transfers)] if transfer_ids else None
                transfers.append(
                    self._post(line, payee, pay, part, kind=kind, job_id=job_id, at_ms=at_ms, transfer_id=stated)
                )
        return tuple(transfers)

    def settle_as_stated(
        self,
        *,
        job_id: bytes,
        payer: bytes,
        held_uusd: int,
        pays: tuple[tuple[bytes, int, str], ...],
        transfer_ids: tuple[bytes, ...],
        at_ms: int,
        own_money: bool = False,
    ) -> None:
        """Post what a receipt states: the hold of *held_uusd* closed, whether it is open or missing, and the transfers.

        Args:
            own_money, transfer_ids: as in `settle`; none of the transfers may be posted already.

        Raises (nothing changes):
            HoldMismatch: the job's hold is closed, or another account's.
            UnknownAccount: payer or payee has no account.
            InsufficientCredit: the payer's free credit and the job's open hold do not cover the pays.
        """
        account, amount, state = self._holds.get(job_id, (payer, 0, OPEN))
        if account != payer or state != OPEN:
            raise HoldMismatch(f"the job's hold is {state}" if account == payer else "the hold is another account's")
        for payee, _, _ in pays:
            self._entry(payee)
        line = self._entry(payer)
        total, free = sum(pay for _, pay, _ in pays), line.balance - line.held + amount
        assert total <= held_uusd, "a receipt charges at most its hold"
        if total > free:
            raise InsufficientCredit(needed_uusd=total, free_uusd=free)
        covered = total <= free - line.promo
        if job_id not in self._holds:
            if covered:
                self._own_money.add(job_id)
            self._new_holds[job_id] = (job_id, payer, held_uusd, 0, OPEN, int(covered))
        elif amount != held_uusd:
            if total > amount and not covered:
                # More than the payer's own money was set aside for: what covers other holds is not spent on this one.
                self._own_money.discard(job_id)
            self._grown[job_id] = (held_uusd, int(job_id in self._own_money))
        # Until it is closed below, more may be held than there is.
        line.held += held_uusd - amount
        line.set_aside += held_uusd - amount
        self._holds[job_id] = (payer, held_uusd, OPEN)
        self.settle(job_id=job_id, pays=pays, at_ms=at_ms, own_money=own_money, transfer_ids=transfer_ids)

    @staticmethod
    def _promo_spent(line: _AccountEntry, total: int, *, own_money: bool) -> int:
        """Return how much of *total* is taken from the promotional part of an account."""
        if own_money:
            return max(0, total - (line.balance - line.promo))
        return min(total, line.promo)

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
        own_money: bool = False,
    ) -> bytes:
        """Move *amount_uusd* (> 0) between two accounts; return the transfer's id, a new one unless given.

        What comes from promotions is promotional, and of any other account its promotional part is moved first.
        Promotional credit never leaves: to payments in, only what is free and not promotional can be moved
        (`Account.payable_uusd`).

        Args:
            own_money: move only what is not promotional.

        Raises:
            UnknownAccount: one of them has no account.
            InsufficientCredit: a buyer's or host's free credit is below the amount.
            OwnMoneyShort: the part of it that may be moved is.
        """
        assert amount_uusd > 0
        giver, taker = self._entry(debit), self._entry(credit)
        promo = 0
        if giver.kind == PROMOTIONS_KIND:
            promo = amount_uusd
        elif giver.kind != PAYMENTS_IN_KIND:
            free = giver.balance - giver.held
            if free < amount_uusd:
                raise InsufficientCredit(needed_uusd=amount_uusd, free_uusd=free)
            if not own_money and taker.kind != PAYMENTS_IN_KIND:
                promo = min(amount_uusd, giver.promo)
            elif free - giver.promo < amount_uusd:
                raise OwnMoneyShort(needed_uusd=amount_uusd, free_uusd=max(0, free - giver.promo))
        return self._post(
            giver, taker, amount_uusd, promo, kind=kind, job_id=job_id, at_ms=at_ms, transfer_id=transfer_id
        )

    def _post(
        self,
        giver: _AccountEntry,
        taker: _AccountEntry,
        amount: int,
        promo: int,
        *,
        kind: str,
        job_id: bytes | None,
        at_ms: int,
        transfer_id: bytes | None = None,
    ) -> bytes:
        giver.balance -= amount
        giver.moved -= amount
        taker.balance += amount
        taker.moved += amount
        if promo:
            giver.promo -= promo
            giver.promo_moved -= promo
            taker.promo += promo
            taker.promo_moved += promo
        transfer = transfer_id or new_id()
        self._transfers.append((transfer, giver.account, taker.account, amount, kind, job_id, at_ms, promo))
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

    def asked_events(self, account: bytes) -> int:
        """Return the bits of the events on request (`events.ON_REQUEST`) that the account's owner asks for."""
        return self._entry(account).asked

    def apply(self, tx: Tx) -> None:
        """Write everything recorded; call it once, last."""
        assert sum(line.moved for line in self._entries.values()) == 0, "transfers must sum to zero"
        if self._corrections:
            tx.insert(PROMO_CORRECTIONS, self._corrections)
        if self._new_holds:
            tx.insert(HOLDS, list(self._new_holds.values()))
        if self._grown:
            rows = [(job_id, amount, covered) for job_id, (amount, covered) in self._grown.items()]
            touched = tx.update(HOLDS, ("amount_uusd", "own_money"), rows)
            assert touched == len(self._grown), "a hold vanished"
        if self._closed:
            touched = tx.update(HOLDS, ("state", "settled_uusd"), list(self._closed.values()))
            assert touched == len(self._closed), "a hold vanished"
        if self._transfers:
            tx.insert(TRANSFERS, self._transfers)
            tx.notes.extend([transfer_note(row) for row in self._transfers if row[5] is None])
        changes = [
            (key, line.moved, line.set_aside, line.numbered, line.promo_moved)
            for key, line in self._entries.items()
            if line.moved or line.set_aside or line.numbered or line.promo_moved
        ]
        if changes:
            touched = tx.add(ACCOUNTS, CHANGED, changes)
            assert touched == len(changes), "an account vanished"
