"""What a ledger is, in the plainest words: the model that `test_ledger_model.py` holds the real one to."""

from collections.abc import Callable
from typing import NamedTuple

from comptoir.ledger import FEES, PAYMENTS_IN, PROMOTIONS, HoldMismatch, InsufficientCredit, OwnMoneyShort

BUYERS = [bytes([65 + n]) * 16 for n in range(3)]
HOSTS = [b"h" * 16, b"i" * 16]
KINDS = (
    dict.fromkeys(BUYERS, "buyer")
    | dict.fromkeys(HOSTS, "host")
    | {
        FEES: "fees",
        PAYMENTS_IN: "payments_in",
        PROMOTIONS: "promotions",
    }
)
JOBS = [bytes([n]) * 16 for n in range(1, 7)]
OWNER = {job: BUYERS[n % len(BUYERS)] for n, job in enumerate(JOBS)}
"""A job has one buyer for ever, whose account guards its hold."""
NAMED = [bytes([200 + n]) * 16 for n in range(3)]
"""Transfer ids that an Idempotency-Key would be bound to."""


MORE = 5
"""What a receipt says was held beyond what was charged."""


class Op(NamedTuple):
    """One thing that is asked of the ledger."""

    verb: str
    """``deposit``, ``promote``, ``refund``, ``hold``, ``grow`` (a hold, to *amount*), ``reach`` (the same, as far as
    credit goes), ``settle`` (with nothing to pay: a release) or ``state`` (what a receipt states of a job whose hold is
    open or gone)."""
    buyer: bytes
    amount: int
    job: bytes = b""
    fee: int = 0
    host: bytes = HOSTS[0]
    transfer: bytes | None = None
    own: bool = False
    """Whether promotional credit is not to be taken: the host takes none."""


class Poison(NamedTuple):
    """An item whose command breaks: its neighbours in the group must not notice."""

    verb: str


class Broken(Exception):
    """What a poisoned item raises."""


Asked = Op | Poison


class Model:
    """What a ledger is, said as plainly as possible."""

    def __init__(self) -> None:
        self.balance = dict.fromkeys(KINDS, 0)
        self.promo = dict.fromkeys(KINDS, 0)
        self.own: set[bytes] = set()
        """Open holds that the buyer's own money covers, whatever else is settled."""
        self.open: dict[bytes, tuple[bytes, int]] = {}
        self.closed: dict[bytes, int] = {}
        self.posted: set[bytes] = set()
        self.told: dict[bytes, list[str]] = {}
        """Types of the numbered events, by owner."""

    def copy(self) -> "Model":
        twin = Model()
        twin.balance, twin.open, twin.closed = dict(self.balance), dict(self.open), dict(self.closed)
        twin.posted, twin.promo, twin.own = set(self.posted), dict(self.promo), set(self.own)
        twin.told = {owner: list(told) for owner, told in self.told.items()}
        return twin

    def rows(self) -> tuple[object, ...]:
        held = {key: self.held(key) for key in KINDS}
        return self.balance, self.promo, held, self.open, self.own, self.closed, self.told

    def held(self, account: bytes) -> int:
        return sum(amount for payer, amount in self.open.values() if payer == account)

    def free(self, account: bytes) -> int:
        return self.balance[account] - self.held(account)

    def do(self, asked: Asked) -> type[Exception] | None:
        """Do what is asked; return what it is refused with."""
        if isinstance(asked, Poison):
            return Broken
        does: Callable[[Op], type[Exception] | None] = getattr(self, asked.verb)
        return does(asked)

    def _move(self, giver: bytes, taker: bytes, amount: int, promo: int = 0) -> None:
        self.balance[giver] -= amount
        self.balance[taker] += amount
        self.promo[giver] -= promo
        self.promo[taker] += promo

    def promote(self, op: Op) -> type[Exception] | None:
        self._move(PROMOTIONS, op.buyer, op.amount, op.amount)
        return None

    def deposit(self, op: Op) -> type[Exception] | None:
        if op.transfer is None or op.transfer not in self.posted:
            self._move(PAYMENTS_IN, op.buyer, op.amount)
            self.told.setdefault(op.buyer, []).append("money.added")
        self.posted |= {op.transfer} if op.transfer else set()
        return None

    def refund(self, op: Op) -> type[Exception] | None:
        if op.amount > self.free(op.buyer):
            return InsufficientCredit
        if op.amount > self.free(op.buyer) - self.promo[op.buyer]:
            return OwnMoneyShort
        self._move(op.buyer, PAYMENTS_IN, op.amount)
        return None

    def hold(self, op: Op) -> type[Exception] | None:
        if op.job in self.closed or self.open.get(op.job, (op.buyer, op.amount)) != (op.buyer, op.amount):
            return HoldMismatch
        if op.job not in self.open and op.amount > self.free(op.buyer):
            return InsufficientCredit
        if op.job not in self.open:
            covered = op.amount <= self.free(op.buyer) - self.promo[op.buyer]
            if op.own and not covered:
                return OwnMoneyShort
            self.own |= {op.job} if covered else set()
        self.open[op.job] = (op.buyer, op.amount)
        return None

    def grow(self, op: Op) -> type[Exception] | None:
        if op.job not in self.open:
            return HoldMismatch
        payer, amount = self.open[op.job]
        more = max(0, op.amount - amount)
        if more > self.free(payer):
            return InsufficientCredit
        covered = op.job in self.own and (not more or more <= self.free(payer) - self.promo[payer])
        if op.own and not covered:
            return OwnMoneyShort
        self.open[op.job] = payer, amount + more
        self.own -= set() if covered else {op.job}
        return None

    def reach(self, op: Op) -> type[Exception] | None:
        if op.job not in self.open:
            return HoldMismatch
        payer, amount = self.open[op.job]
        own = self.free(payer) - self.promo[payer] if op.job in self.own else 0
        most = amount + max(0, own if op.own else self.free(payer))
        return self.grow(op._replace(amount=min(op.amount, most)))

    def settle(self, op: Op) -> type[Exception] | None:
        if op.job not in self.open or op.amount + op.fee > self.open[op.job][1]:
            return HoldMismatch
        return self._pay(op, self.open.pop(op.job)[0])

    def state(self, op: Op) -> type[Exception] | None:
        if op.job in self.closed:
            return HoldMismatch
        cost, (_, before) = op.amount + op.fee, self.open.get(op.job, (op.buyer, 0))
        free = self.free(op.buyer) + before
        if cost > free:
            return InsufficientCredit
        covered = cost <= free - self.promo[op.buyer]
        if op.job not in self.open and covered:
            self.own.add(op.job)
        elif cost > before and not covered:
            self.own.discard(op.job)
        self.open.pop(op.job, None)
        return self._pay(op, op.buyer)

    def _pay(self, op: Op, payer: bytes) -> None:
        self.closed[op.job] = cost = op.amount + op.fee
        promo = 0 if op.own and op.job in self.own else min(cost, self.promo[payer])
        to_host = promo * op.amount // cost if cost else 0
        self.own.discard(op.job)
        self._move(payer, op.host, op.amount, to_host)
        self._move(payer, FEES, op.fee, promo - to_host)
        self.told.setdefault(payer, []).append("job.ended")
