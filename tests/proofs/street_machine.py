"""The job machine: a real house over a real database, driven step by step beside the reference model.

Hosts are fakes, time moves by hand, and every command that was written is remembered so that it can come a second time.
"""

import asyncio
import itertools
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from hypothesis.stateful import rule
from msgspec import structs

from comptoir.app import open_core
from comptoir.dispatch import Core
from comptoir.dispatch.assign import Requeued, requeue_verb, start_verb
from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.core import CommandOrder
from comptoir.dispatch.deferred_settlements import DeferredSettlements
from comptoir.dispatch.expire import sweep
from comptoir.dispatch.extend import extend_verb
from comptoir.dispatch.onboard import add_host, add_user
from comptoir.dispatch.settle import Ending, _item, settle_verb
from comptoir.dispatch.stream import complete, fail, leased_job, take_frames
from comptoir.dispatch.submit import submit, submit_verb
from comptoir.hosts import LINK, POLL, NewHost
from comptoir.jobs import (
    AttemptState,
    Fault,
    JobFinished,
    JobMoved,
    JobState,
    LiveJob,
    NotYourLease,
    Start,
    decode_frames,
)
from comptoir.kit.clock import FakeClock
from comptoir.kit.db import Tx
from comptoir.kit.errors import Unavailable
from comptoir.kit.ids import new_id
from comptoir.ledger import HoldMismatch, InsufficientCredit
from comptoir.link import Frame, Usage, hash_after, hash_start
from comptoir.reports.audit import differences
from comptoir.settings import Settings
from tests.machines import Gate, LoopMachine
from tests.proofs.model import BROKEN_WAIT_S, FEE_BPS, LEASE_S, TTL_S, Model, ModelHost, ModelJob
from tests.street import GOES_ON, OFFER, FakeChannel, order

T = TypeVar("T")

Command = tuple[Callable[[Tx, list[Any]], list[Any]], Any, int]
"""Verb, item and turn of something written."""

DOUBLED_KEY = (sqlite3.IntegrityError, psycopg.errors.UniqueViolation)
TWICE: dict[Callable[..., Any], tuple[type[Exception], ...]] = {
    # An order without an Idempotency-Key has an id of its own; a buyer may have no credit for it by now.
    submit_verb: (*DOUBLED_KEY, InsufficientCredit),
    # A job that was put back in line is queued again: then it is the lease that exists already.
    start_verb: (*DOUBLED_KEY, JobFinished, JobMoved),
    extend_verb: (JobFinished, HoldMismatch),
    requeue_verb: (NotYourLease, JobMoved),
    settle_verb: (JobFinished,),
}
"""What each verb says to a command that comes twice."""

NOT_EXTENDED = None, False
"""What the verb says that raised no bound, and wrote nothing."""

HOSTS = ((LINK, 1, True), (LINK, 2, True), (POLL, 2, False), (LINK, 1, True))
"""Transport, slots, and whether it can go on from another host's frames."""


class Street:
    """The house under test; it can be closed and opened again over the same data."""

    def __init__(self, folder: Path, database: str) -> None:
        self.clock = FakeClock()
        self._settings = Settings(
            data=str(folder),
            database=database,
            fee_bps=FEE_BPS,
            lease_s=LEASE_S,
            job_ttl_s=TTL_S,
            broken_wait_s=BROKEN_WAIT_S,
            host_silent_s=86_400.0,
            host_away_s=86_400.0,
            retention_days=0,
        )
        self._opened = AsyncExitStack()
        self.core: Core
        self.channels: dict[bytes, FakeChannel] = {}
        self.written: list[Command] = []
        self.refuse = ""
        """Name of the verb whose next command the database refuses; ``any`` for whichever comes first."""

    async def open(self) -> None:
        self.core = await self._opened.enter_async_context(open_core(self._settings, clock=self.clock))
        self._watch(self.core)

    async def close(self) -> None:
        self.refuse = ""
        await self._opened.aclose()
        self._opened = AsyncExitStack()
        self.channels.clear()

    def _watch(self, core: Core) -> None:
        batch = core.db.batch

        def watched(verb: Any, item: Any, *, turn: int = 0) -> "asyncio.Future[Any]":
            if self.refuse in ("any", verb.__name__):
                self.refuse = ""
                refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                refused.set_exception(Unavailable("the database is out of order"))
                return refused
            done = batch(verb, item, turn=turn)
            done.add_done_callback(partial(self._note, (verb, item, turn)))
            return done

        self.batch = batch
        core.db.batch = watched  # type: ignore[method-assign]

    def _note(self, command: Command, done: "asyncio.Future[Any]") -> None:
        if not done.cancelled() and done.exception() is None and done.result() != NOT_EXTENDED:
            self.written.append(command)

    async def quiet(self) -> None:
        """Wait until nothing goes on by itself any more."""
        for _ in range(4):
            await asyncio.sleep(0)
            await self.core.background.drain_tasks()
            while len(self.core.state(DeferredSettlements)) or self.core.state(DeferredSettlements)._task is not None:
                await asyncio.sleep(0)


class StreetMachine(LoopMachine):
    """What rules and invariants need: the house, the model, and both doing the same."""

    fresh: Callable[[], tuple[Path, str]]
    """Gives an empty folder and the address of an empty database."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.street = Street(*type(self).fresh())
        self.numbers = itertools.count()
        self.agreed = False
        """Whether house and model agreed after the last step; if not, the end of the run has nothing to add."""
        self.wait(self._begin())

    async def _begin(self) -> None:
        await self.street.open()
        core = self.street.core
        for name in ("ada", "bob"):
            self.model.join((await add_user(core, username=name, email=None, password=None)).user.id)
        for transport, slots, goes_on in HOSTS:
            new = NewHost(gpu="x", models=(GOES_ON if goes_on else OFFER,), slots=slots, transport=transport)
            host_id = (await add_host(core, new)).host_id
            self.model.hosts[host_id] = ModelHost(host_id, slots, transport == POLL, goes_on)

    def teardown(self) -> None:
        try:
            if self.agreed:
                self.wait(self._everything_adds_up())
        finally:
            self.wait(self.street.close())
            super().teardown()

    @property
    def core(self) -> Core:
        return self.street.core

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do *work*, wait until the house is quiet, and have the model take over who got what."""

        async def whole() -> T:
            try:
                return await work
            finally:
                await self.street.quiet()
                self._adopt_bounds()

        return self.wait(whole())

    async def now(self, act: Callable[[], None]) -> None:
        """Do something that needs the event loop and does not wait."""
        act()

    def refused(self, kind: type[Exception], work: Coroutine[Any, Any, Any]) -> None:
        """Do *work*, which has to be refused with *kind*."""
        with pytest.raises(kind):
            self.do(work)

    async def together(self, *works: Coroutine[Any, Any, Any]) -> list[Any]:
        """Do *works* side by side, what they write in one group."""
        gate = Gate(self.core.db)
        await gate.entered()
        tasks = [asyncio.ensure_future(work) for work in works]
        for _ in range(3):
            await asyncio.sleep(0)
        gate.open()
        await gate.passed()
        return await asyncio.gather(*tasks, return_exceptions=True)

    # -- what hosts and buyers do --------------------------------------------------------------------------------

    def live(self, job: ModelJob) -> LiveJob:
        """Return the job as the house has it under the lease that the model knows."""
        assert job.host is not None
        return leased_job(self.core, job.host.id, job.lease)

    async def submit(self, buyer: bytes, max_tokens: int, detached: bool, open_ended: bool = False) -> LiveJob:
        asked = order(buyer, max_tokens=max_tokens, detached=detached)
        return await submit(self.core, structs.replace(asked, open_ended=open_ended))

    def accepted(self, live: LiveJob) -> ModelJob:
        """Tell the model of a job that was accepted."""
        job = ModelJob(live.id, live.owner_id, live.terms.output_max, live.detached, self.model.now_s + TTL_S)
        job.grows = live.grows
        assert live.terms.hold_uusd == job.hold
        self.model.accept(job)
        return job

    def write(self, job: ModelJob, count: int) -> None:
        """Have the host write *count* tokens more, each unlike any other."""
        job.written += [f"{next(self.numbers)} " for _ in range(count)]

    def send(self, job: ModelJob, first: int, last: int) -> int:
        """Send frames *first* to *last* (exclusive) of what the host has written."""

        async def taken() -> int:
            return take_frames(self.core, self.live(job), first, [Frame(text) for text in job.written[first:last]])

        # Only of a bound that grows something comes of itself.
        return self.do(taken()) if self.live(job).growth is not None else self.wait(taken())

    def chain(self, job: ModelJob) -> bytes:
        """Return the running hash as the host has it."""
        chain = hash_start(job.id)
        for text in job.written:
            chain = hash_after(chain, Frame(text))
        return chain

    def completion(self, job: ModelJob, *, wrong: bool = False) -> Coroutine[Any, Any, None]:
        chain = b"\0" * 32 if wrong else self.chain(job)
        usage = Usage(1, len(job.written))
        return complete(self.core, self.live(job), finish_reason="stop", usage=usage, running_hash=chain)

    def failure(self, job: ModelJob, fault: str, code: str = "broke") -> Coroutine[Any, Any, None]:
        return fail(self.core, self.live(job), code=code, message="it broke", fault=Fault(fault))

    def cancellation(self, job: ModelJob) -> Coroutine[Any, Any, None]:
        live = self.core.jobs.live.get(job.id)
        assert live is not None
        return cancel(self.core, live)

    def link(self, host: ModelHost) -> None:
        channel = self.street.channels.setdefault(host.id, FakeChannel())
        self.core.channels[host.id] = channel
        if host.polls:
            self.core.fleet.poll_began(host.id)
            host.waiting += 1
        else:
            self.core.fleet.mark_linked(host.id)
        host.linked = True

    def unlink(self, host: ModelHost) -> None:
        del self.core.channels[host.id]
        self.core.fleet.unlinked(host.id)
        host.linked = False
        for live in self.core.jobs.live.leases_of(host.id):
            assert live.lease is not None
            # As `link_dropped` does, without its timer of real time.
            live.lease.touched_s = live.lease.dropped_s = self.core.clock.monotonic_s()
        for job in self.model.running():
            if job.host is host:
                job.touched_s = self.model.now_s

    def pass_time(self, seconds: float) -> None:
        """Advance both clocks, and have the house and the model look for what is overdue."""
        self.street.clock.advance(seconds=seconds)
        self.model.now_s += seconds
        self.do(sweep(self.core))
        self.model.sweep({job.id for job in self.model.running() if not self.still_there(job)})

    @rule()
    def restart(self) -> None:
        """The next coordinator takes everything over; what the one before was about to write comes too late."""
        late = self.about_to_be_written()
        self.wait(self.street.close())
        self.wait(self.street.open())
        self.model.restart()
        self.do(self.run_late(late))

    def bring_the_rest(self, job: ModelJob) -> None:
        """Have the host send what it wrote and the house has not: after a restart it begins at 0."""
        if len(job.frames) < len(job.written):
            self.send(job, len(job.frames), len(job.written))
            self.model.deliver(job, job.written[len(job.frames) :])

    async def hasty(self, buyer: bytes, max_tokens: int, meanwhile: str) -> LiveJob:
        """Buy, while the host that was given the job before its commit goes on already."""
        before = {host_id: len(channel.sent) for host_id, channel in self.street.channels.items()}
        buying = asyncio.ensure_future(self.submit(buyer, max_tokens, True))
        await asyncio.sleep(0)
        for host_id, channel in self.street.channels.items():
            for live, _ in channel.sent[before[host_id] :]:
                if meanwhile == "frames":
                    take_frames(self.core, live, 0, [Frame("early ")])
                elif meanwhile == "done":
                    await complete(self.core, live, finish_reason="stop", usage=Usage(1, 0))
        return await buying

    def recount_polls(self) -> None:
        """A polling host's request may have been used up by a job that was refused after all; it counts again within a
        second."""
        self._adopt_starts()
        for host in self.model.hosts.values():
            if host.polls:
                waiting = self.core.fleet.get(host.id).slots.waiting
                assert waiting is not None and host.waiting - 1 <= waiting <= host.waiting
                host.waiting = waiting

    # -- both say the same ---------------------------------------------------------------------------------------

    def still_there(self, job: ModelJob) -> bool:
        """Tell whether the house has *job* under the lease that the model knows."""
        live = self.core.jobs.live.by_lease(job.lease)
        return live is not None and live.id == job.id

    def adopt(self) -> None:
        """Take over which hosts the house chose; insist that they were allowed and that nothing waits that could
        run."""
        self._adopt_starts()
        for job in self.model.jobs.values():
            idle = [
                host.id.hex()
                for host in self.model.hosts.values()
                # Who said again and again that it is busy rests for a moment (`comptoir.hosts.resting`).
                if self.model.may_run(job, host) and not self.core.fleet.get(host.id).rests
            ]
            assert not idle, f"job {job.id.hex()} waits while {idle} could run it"
            if job.state == "queued":
                self.model.wait_in_line(job)

    def _adopt_bounds(self) -> None:
        """Take over how long answers may be whose buyers named no bound."""
        for job in self.model.open_jobs():
            live = self.core.jobs.live.get(job.id)
            if live is not None and live.growth is not None:
                self.model.raise_bound(job, live.terms.output_max, grows=live.grows)

    def _adopt_starts(self) -> None:
        for job in self.model.waiting():
            live = self.core.jobs.live.get(job.id)
            if live is not None and live.lease is not None:
                self.model.start(job, self.model.hosts[live.lease.host_id], live.lease.id)

    def compare_memory(self) -> None:
        """The house's memory against the model."""
        core, running = self.core, self.model.running()
        assert {job.id for job in self.model.open_jobs()} == set(core.jobs.live._jobs)
        assert core.jobs.live.leased == len(running)
        for host in self.model.hosts.values():
            assert core.fleet.get(host.id).slots.running == self.model.busy(host), "slots are not what leases say"
        for job in self.model.open_jobs():
            live = core.jobs.live.get(job.id)
            assert live is not None
            assert [frame.text for frame in live.frames] == job.frames
            assert live.state == job.state
            assert (live.lease.id if live.lease else b"") == job.lease
            assert (job.id in core.jobs.queue) == (job.state == "queued")
        waiting = {buyer: sum(job.buyer == buyer for job in self.model.open_jobs()) for buyer in self.model.buyers}
        assert core.state(Buyers).in_flight.counts() == {buyer: count for buyer, count in waiting.items() if count}

    def compare_tables(self, tx: Tx) -> None:
        """What is stored against the model, and against itself."""
        assert differences(tx.fetch) == []
        model = self.model
        stored = {bytes(row[0]): row[1:] for row in tx.fetch("SELECT id, state, cost_uusd, restarts FROM jobs")}
        assert stored == {job.id: (job.state, job.cost, job.restarts or None) for job in model.jobs.values()}
        self._compare_parts(tx)
        accounts = {
            bytes(row[0]): row[1:] for row in tx.fetch("SELECT id, balance_uusd, held_uusd, kind FROM accounts")
        }
        for buyer, balance in model.buyers.items():
            assert accounts[buyer] == (balance, model.held(buyer), "buyer")
            assert model.free(buyer) >= 0
        assert {host.id: host.earned for host in model.hosts.values()} == {
            key: balance for key, (balance, _, kind) in accounts.items() if kind == "host"
        }
        assert sum(balance for balance, _, kind in accounts.values() if kind == "fees") == model.fees

    def _compare_parts(self, tx: Tx) -> None:
        """Who delivered which frames, without gap or overlap, and earned what; and the frames kept of unfinished
        answers."""
        closed: dict[bytes, list[tuple[object, ...]]] = {job_id: [] for job_id in self.model.jobs}
        sql = "SELECT job_id, id, first_frame, end_frame, paid_uusd, ended_ms FROM attempts ORDER BY id"
        for job_id, lease, first, end, paid, ended_ms in tx.fetch(sql):
            if ended_ms is not None and (end > first or paid):
                closed[bytes(job_id)].append((bytes(lease), first, end, paid))
        kept: dict[bytes, list[str]] = {}
        for job_id, frames in tx.fetch("SELECT job_id, frames FROM journal ORDER BY job_id, first_frame"):
            kept.setdefault(bytes(job_id), []).extend(frame.text for frame in decode_frames(frames))
        for job in self.model.jobs.values():
            parts = [part for part in job.parts if part.end > part.first or part.earned]
            assert closed[job.id] == [(part.lease, part.first, part.end, part.earned) for part in parts]
            assert kept.get(job.id, []) == ([] if job.over else job.journal)
            ends = [0, *(part.end for part in parts)]
            assert [part.first for part in parts] == ends[:-1], "segments leave a gap or overlap"

    async def _everything_adds_up(self) -> None:
        await self.core.db.run(self.compare_tables)
        for job in self.model.jobs.values():
            if job.over:
                frames, _ = await self.core.jobs.answer(job.id)
                assert [frame.text for frame in frames] == job.frames

    def about_to_be_written(self) -> list[Command]:
        """Return what this coordinator might write next: the end of a running job, its loss, the start of one that
        waits."""
        late: list[Command] = []
        for job in self.model.running()[:1]:
            live = self.live(job)
            item = _item(self.core, live, live.lease, Ending(JobState.COMPLETED))
            lost = structs.replace(item.finish, state=JobState.QUEUED, attempt_state=AttemptState.LOST, frames=b"")
            late += [(settle_verb, item, CommandOrder.SETTLE), (requeue_verb, Requeued(lost), CommandOrder.REQUEUE)]
        for job in self.model.waiting()[:1]:
            node_id, host_id = self.core.node_id, next(iter(self.model.hosts))
            item = Start(job.id, new_id(), host_id, len(job.frames), 1, 99, node_id, node_id, 1, 1)
            late.append((start_verb, item, CommandOrder.START))
        return late

    async def run_late(self, commands: Sequence[Command]) -> None:
        """Run commands of a coordinator that lost its jobs to another in the meantime."""
        for verb, item, turn in commands:
            with pytest.raises((JobMoved, JobFinished)):
                await self.street.batch(verb, item, turn=turn)

    async def run_again(self, commands: Sequence[Command]) -> None:
        """Run commands that were written a second time, as if a message had been doubled: each must be refused, and say
        why."""
        for verb, item, turn in commands:
            with pytest.raises(TWICE[verb]):
                await self.street.batch(verb, item, turn=turn)
