"""Jobs for hosts of other coordinators: offered by their owner, leased there by one compare-and-set.

A job is offered when routing chose a remote host, or when another coordinator asks because it has free slots and none
of its own jobs has waited longer. Until the lease is written, the offering coordinator owns the job; if no answer
comes, it enqueues the job again, and the first write wins.
"""

import asyncio
import logging
from functools import partial
from itertools import islice
from typing import NamedTuple

from comptoir.cluster.fleet_view import FleetView
from comptoir.cluster.messages import AskForJobs, Declined, JobOffer, Took
from comptoir.cluster.mirrors import Mirrors
from comptoir.cluster.switchboard import Switchboard
from comptoir.dispatch import Core
from comptoir.dispatch.assign import assign_waiting, deliver, lease_on, reserve_host, spec_now, wait_here
from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.drain import Shutdown
from comptoir.dispatch.on_request import ASSIGNED, ToldOfStarts
from comptoir.events import RemoteJobsWaiting
from comptoir.hosts import Host
from comptoir.jobs import JobRow, LiveJob, Waiting
from comptoir.kit.errors import Refusal
from comptoir.ledger import InsufficientCredit
from comptoir.routing import Candidate, Spec, passes

log = logging.getLogger(__name__)

ANSWER_S = 1.0
"""How long an offer may stay unanswered: about a hundred times what a lease takes; jobs offered to a coordinator that
hangs wait so long."""

HOLD_S = 0.03
"""How long a freed slot is held for a job elsewhere that has waited longer, before a job from here gets it."""

ASK_AGAIN_S = 0.25
"""Delay before the same coordinator is asked again for jobs of a model, if none came."""

FRESH_BODY_MAX = 256 * 1024
"""Largest body sent with its offer; the receiver reads a larger one from the database."""

ASK_MAX = 64
"""Most jobs asked for at once."""


class _Made(NamedTuple):
    """An offer that is not answered yet."""

    job: LiveJob
    host_id: bytes
    """The host that routing chose; empty: the other coordinator asked for a job."""
    timer: asyncio.TimerHandle


class Offers:
    """Offers made and received."""

    def __init__(self, core: Core, switchboard: Switchboard, view: FleetView, mirrors: Mirrors) -> None:
        self._core = core
        self._board = switchboard
        self._view = view
        self._mirrors = mirrors
        self._considered: set[bytes] = set()
        """Offered jobs that are being leased or claimed now."""
        self._loop = asyncio.get_running_loop()
        self._made: dict[bytes, _Made] = {}
        """Unanswered, by job."""
        self._asked: dict[tuple[bytes, str], float] = {}
        self._held: set[bytes] = set()
        """Hosts here whose freed slot is held for a job from elsewhere."""
        switchboard.on(JobOffer, self._offered)
        switchboard.on(Took, self._took)
        switchboard.on(Declined, self._declined)
        switchboard.on(AskForJobs, self._was_asked)
        core.events.subscribe(RemoteJobsWaiting, lambda event: self._heads_came(event.node_id))

    # -- making --------------------------------------------------------------------------------------------------

    def offer(self, job: LiveJob, candidate: Candidate) -> bool:
        """Offer *job*, which is not queued, to the coordinator of *candidate*; False: it can't be reached now."""
        host = self._core.fleet.find(candidate.host_id)
        if host is None or not host.node_id or not self._board.up:
            return False
        self._view.counted(host.id, job.model, 1)
        self._send(job, host.node_id, host_id=host.id)
        return True

    def _send(self, job: LiveJob, node_id: bytes, *, host_id: bytes = b"") -> None:
        timer = self._loop.call_later(ANSWER_S, self._unanswered, job.id)
        self._made[job.id] = _Made(job, host_id, timer)
        # Whoever reads it from the database learns who called its request bad.
        fresh = not job.frames and not job.accusers
        row = job.as_row() if fresh and len(job.body) <= FRESH_BODY_MAX else None
        dearest = list(job.growth.dearest or ()) if job.growth is not None else []
        offer = JobOffer(
            job.id, job.events, row, list(job.tried), job.answers, job.own_money, list(job.ceilings), dearest,
            bool(self._core.state(ToldOfStarts).buyer_of(job)),
        )  # fmt: skip
        self._board.send(node_id, offer)

    def _took(self, sender: bytes, message: Took) -> None:
        made = self._made.pop(message.job_id, None)
        if made is not None:
            made.timer.cancel()
        job = self._core.jobs.live.get(message.job_id)
        if job is not None:
            self._mirrors.become_mirror(job, sender)

    def _declined(self, sender: bytes, message: Declined) -> None:
        made = self._made.get(message.job_id)
        if made is not None and message.short:
            made.job.may_cost(())
        self._failed(message.job_id)

    def _unanswered(self, job_id: bytes) -> None:
        log.info("an offer was not answered")
        self._failed(job_id)

    def _failed(self, job_id: bytes) -> None:
        made = self._made.pop(job_id, None)
        if made is not None:
            made.timer.cancel()
            if made.host_id:
                self._view.counted(made.host_id, made.job.model, -1)
            wait_here(self._core, made.job)

    # -- taking --------------------------------------------------------------------------------------------------

    def _offered(self, sender: bytes, message: JobOffer) -> None:
        for key in [key for key in self._asked if key[0] == sender]:
            del self._asked[key]
        if self._core.state(Shutdown).draining:
            self._board.send(sender, Declined(message.job_id))
        else:
            self._core.background.spawn(self._consider(sender, message))

    def _is_cut(self, row: JobRow) -> bool:
        """Tell whether a job came without its stages, from an older coordinator: the database has all of it."""
        return self._core.jobs.kinds.stored(row.kind).staged and not row.stages

    async def _consider(self, sender: bytes, message: JobOffer) -> None:
        job_id = message.job_id
        if job_id in self._considered:
            return  # Offered again while the first offer is being written, which answers both.
        if self._core.jobs.live.get(job_id) is not None:
            self._board.send(sender, Took(job_id))
            return
        if message.row is not None and not self._core.jobs.kinds.stored(message.row.kind).sold:
            self._board.send(sender, Declined(job_id))  # The sender finds another host for it.
            return
        taken = short = False
        self._considered.add(job_id)
        try:
            if message.row is not None and not self._is_cut(message.row):
                taken = await self._lease(sender, message)
            else:
                taken = await self._claim(sender, message)
        except Refusal as refusal:
            log.info("an offered job could not be taken: %s", refusal)
            short = isinstance(refusal, InsufficientCredit)
        finally:
            self._considered.discard(job_id)
        if not taken:
            self._board.send(sender, Declined(message.job_id, short))

    async def _lease(self, sender: bytes, message: JobOffer) -> bool:
        """Lease a new job to a free host: one command, which makes this coordinator its owner."""
        core, row = self._core, message.row
        assert row is not None
        job = self._mirrors.expect(row, sender)
        job.accept_offer(row, events=message.events, answers=message.answers, tried=message.tried)
        job.may_cost(message.ceilings)
        if job.growth is not None:
            job.growth.note_dearest(message.dearest)
        job.note_own_money(message.own_money)
        core.state(ToldOfStarts).note(job, ASSIGNED if message.tells else 0)
        spec = spec_now(core, job)
        candidate = reserve_host(core, spec, here=True)
        if candidate is None:
            self._mirrors.leave_to(job, sender)
            return False
        try:
            lease = await lease_on(core, job, candidate, from_id=sender)
        except Refusal:
            self._mirrors.leave_to(job, sender)
            raise
        self._mirrors.adopt(job)
        core.jobs.live.add(job)
        core.state(Buyers).enter(job)
        # First, so that frames come after it.
        self._board.send(sender, Took(job.id))
        self._mirrors.serve(sender, job, start=0, running_hash=job.running_hash)
        deliver(core, job, lease)
        return True

    async def _claim(self, sender: bytes, message: JobOffer) -> bool:
        """Become the owner of a job that has run before, load it, and give it to a host here."""
        core = self._core
        row = await core.jobs.claim(message.job_id, node_id=core.node_id, from_id=sender)
        if row is None:
            return False
        self._board.send(sender, Took(row.id))
        await self._mirrors.resume_job(row, tried=message.tried, ceilings=message.ceilings)
        return True

    # -- asking --------------------------------------------------------------------------------------------------

    def _was_asked(self, sender: bytes, message: AskForJobs) -> None:
        core = self._core
        # Including hosts that were full when last announced: the asking coordinator knows better.
        there = self._candidates_of(sender, message.model)

        def accept(entry: Waiting) -> bool:
            assert isinstance(entry.terms, Spec)
            return any(passes(entry.terms, candidate) for candidate in there)

        for _ in range(min(message.count, ASK_MAX)):
            entry = core.jobs.queue.take((message.model,), accept)
            job = core.jobs.live.get(entry.job_id) if entry is not None else None
            if job is None:
                return
            self._send(job, sender)

    def _candidates_of(self, node_id: bytes, model: str) -> list[Candidate]:
        fleet = self._core.fleet
        known = fleet.free_list(model)
        every = known.all.values() if known is not None else ()
        of = (candidate for candidate in every if candidate.remote and fleet.get(candidate.host_id).node_id == node_id)
        return list(islice(of, ASK_MAX))

    def _heads_came(self, sender: bytes) -> None:
        """Jobs wait at *sender*: ask for those that a host here could take at once."""
        queue = self._core.jobs.queue
        own = queue.heads() if len(queue) else {}
        for model, head in self._view.heads.get(sender, {}).items():
            if own.get(model, b"\xff") > head:
                self._ask(sender, model, self._free_here(model))

    def _ask(self, node_id: bytes, model: str, count: int) -> bool:
        now = self._loop.time()
        if not count or not self._board.up or self._asked.get((node_id, model), 0.0) > now:
            return False
        self._asked[node_id, model] = now + ASK_AGAIN_S
        self._board.send(node_id, AskForJobs(model, count))
        return True

    def _free_here(self, model: str) -> int:
        fleet, channels = self._core.fleet, self._core.channels
        known = fleet.free_list(model)
        count = 0
        for candidate in known.free() if known is not None else ():
            host = fleet.get(candidate.host_id)
            if not host.node_id and host.id in channels:
                count += host.slots.free
                if count >= ASK_MAX:
                    return ASK_MAX
        return count

    def waits_for_older(self, host: Host) -> bool:
        """Tell whether a slot of *host* is held briefly for a job elsewhere that has waited longer than any here."""
        if host.id in self._held:
            return True
        if not self._view.heads:
            return False
        heads = self._core.jobs.queue.heads()
        for model in host.candidates:
            elder = min(
                ((heads_there[model], node) for node, heads_there in self._view.heads.items() if model in heads_there),
                default=None,
            )
            if elder is not None and elder[0] < heads.get(model, b"\xff") and self._asks_for(elder[1], model, host):
                return True
        return False

    def _asks_for(self, node_id: bytes, model: str, host: Host) -> bool:
        if not self._ask(node_id, model, host.slots.free):
            return False
        self._held.add(host.id)
        self._loop.call_later(HOLD_S, partial(self._release_slot, host.id))
        return True

    def _release_slot(self, host_id: bytes) -> None:
        self._held.discard(host_id)
        if host_id in self._core.channels:
            assign_waiting(self._core, host_id)
