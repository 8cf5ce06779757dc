"""A house without HTTP for tests of the street: hosts are fakes that do what the test says, time moves by hand."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from comptoir.app import open_core
from comptoir.dispatch import Core
from comptoir.dispatch.onboard import add_host, add_user
from comptoir.dispatch.stream import complete, take_frames
from comptoir.dispatch.submit import Order, submit
from comptoir.hosts import LINK, NewHost
from comptoir.jobs import Lease, LiveJob, Reader
from comptoir.kit.clock import FakeClock
from comptoir.kit.db import Tx
from comptoir.ledger import PROMOTIONS, Book
from comptoir.link import Frame, ModelOffer, Usage
from comptoir.receipts import Receipt
from comptoir.settings import Settings

MODEL = "m"
OFFER = ModelOffer(MODEL, ["chat"], 100_000, 1_000_000, 100_000_000)
"""$1 in and $100 out per million tokens: a token of the answer costs 100 micro-dollars."""

GOES_ON = msgspec.structs.replace(OFFER, can_continue=True)
"""The same from a host that can go on from another one's frames."""

SIGNUP_UUSD = 1_000_000


@dataclass
class FakeChannel:
    """A line to a host that notes what it is told."""

    open: bool = True
    sent: list[tuple[LiveJob, Lease]] = field(default_factory=list)
    cancelled: list[tuple[bytes, str]] = field(default_factory=list)
    closed: list[tuple[bytes, str, int]] = field(default_factory=list)
    """Lease, state and micro-dollars earned, as the host heard them."""
    bounds: list[tuple[int, bool]] = field(default_factory=list)
    """How long the answer may be by now, and whether that is final, as the host heard it."""
    turned_away: list[tuple[str, bool]] = field(default_factory=list)
    """Why, and whether for good."""

    def send_job(self, job: LiveJob, lease: Lease) -> bool:
        if self.open:
            self.sent.append((job, lease))
        return self.open

    def raise_bound(self, job: LiveJob, lease: Lease) -> None:
        self.bounds.append((job.terms.output_max, not job.grows))

    def cancel(self, lease: Lease, reason: str) -> None:
        self.cancelled.append((lease.id, reason))

    def turn_away(self, reason: str, *, for_good: bool) -> None:
        self.turned_away.append((reason, for_good))

    def settled(
        self,
        job: LiveJob,
        lease: Lease,
        *,
        state: str,
        earned_uusd: int,
        balance_uusd: int,
        promo_uusd: int = 0,
        receipt: Receipt | None = None,
    ) -> None:
        self.closed.append((lease.id, state, earned_uusd))


@dataclass
class Street:
    """One coordinator's core."""

    core: Core
    clock: FakeClock
    buyer_id: bytes
    folder: Path

    async def host(
        self,
        *,
        slots: int = 1,
        transport: str = LINK,
        offer: ModelOffer = OFFER,
        public_key: bytes | None = None,
        owner_id: bytes | None = None,
    ) -> tuple[bytes, FakeChannel]:
        """Register a host and link it (or have it poll)."""
        new = NewHost(
            gpu="x", models=(offer,), slots=slots, transport=transport, public_key=public_key, owner_id=owner_id
        )
        made = await add_host(self.core, new)
        channel = FakeChannel()
        self.link(made.host_id, channel)
        return made.host_id, channel

    def link(self, host_id: bytes, channel: FakeChannel) -> None:
        """Say that *host_id* is reached by *line*."""
        self.core.channels[host_id] = channel
        if self.core.fleet.get(host_id).row.transport == LINK:
            self.core.fleet.mark_linked(host_id)
        else:
            self.core.fleet.poll_began(host_id)

    def unlink(self, host_id: bytes) -> None:
        """Say that the line to *host_id* is gone."""
        del self.core.channels[host_id]
        self.core.fleet.unlinked(host_id)

    async def submit(self, *, max_tokens: int = 10, detached: bool = True, job_id: bytes | None = None) -> LiveJob:
        """Buy a job."""
        return await submit(self.core, order(self.buyer_id, max_tokens=max_tokens, detached=detached, job_id=job_id))

    async def own_money(self, *, but_uusd: int = 0) -> None:
        """Exchange the buyer's sign-up credit, but for *but_uusd*, for own money: only that earns a host merit."""
        amount_uusd = await self.free_uusd() - but_uusd
        await self.leave_credit(but_uusd)
        await self.core.ledger.deposit(owner_id=self.buyer_id, amount_uusd=amount_uusd)

    async def leave_credit(self, left_uusd: int) -> None:
        """Have the buyer give back all credit but so much."""
        amount_uusd = await self.free_uusd() - left_uusd

        def command(tx: Tx) -> None:
            book = Book.load(tx, [self.buyer_id, PROMOTIONS])
            book.move(debit=self.buyer_id, credit=PROMOTIONS, amount_uusd=amount_uusd, kind="x", job_id=None, at_ms=1)
            book.apply(tx)

        await self.core.db.run(command)

    async def free_uusd(self) -> int:
        """What the buyer can spend."""
        return (await self.core.ledger.account(self.buyer_id)).free_uusd


def order(owner_id: bytes, *, max_tokens: int = 10, detached: bool = True, job_id: bytes | None = None) -> Order:
    """Return an order for `MODEL`."""
    return Order(owner_id, "test", "chat", MODEL, b'{"messages":[]}', max_tokens, detached, job_id)


def deliver(core: Core, job: LiveJob, count: int) -> None:
    """Have the job's host send *count* tokens more."""
    take_frames(core, job, len(job.frames), [Frame(f"{n} ") for n in range(count)])


async def finish_well(core: Core, job: LiveJob, *, tokens: int = 5) -> None:
    """Have the job's host answer with *tokens* tokens."""
    deliver(core, job, tokens)
    await complete(core, job, finish_reason="stop", usage=Usage(1, tokens))


async def until_over(job: LiveJob) -> None:
    """Wait for the end of *job*, reading it."""
    reader = Reader(job)
    while await reader.next() is not None:
        pass


@asynccontextmanager
async def open_street(
    folder: Path, *, database: str = "", buyer: bytes | None = None, **settings: Any
) -> AsyncIterator[Street]:
    """Open a house in *folder* with one buyer, or over what is there for *buyer*."""
    clock = FakeClock(now_ms=time.time_ns() // 1_000_000)
    chosen = Settings(data=str(folder / "data"), database=database, **settings)
    async with open_core(chosen, clock=clock) as core:
        if buyer is None:
            buyer = (await add_user(core, username="ada", email=None, password=None)).user.id
        yield Street(core, clock, buyer, folder)
