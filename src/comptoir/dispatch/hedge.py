"""Hedge: start a second host on a job whose first frame is late; the first to deliver keeps the job, unpaid the other.

The second host works on a lease that is not stored: until it delivers, the first host holds the job in the database
too. When the second delivers first, its frames wait while two commands transfer the job (the first attempt is closed
without fault, and the second begins), so readers only see frames of the host that holds the job. Off by default
(`Settings.hedge`).
"""

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from comptoir.dispatch.assign import enqueue, new_lease, requeue, reserve_host, spec_now, write_lease
from comptoir.dispatch.core import Core
from comptoir.dispatch.extend import tell_bound
from comptoir.dispatch.second_host import Hedge, Hedges, drop_hedge
from comptoir.events import JobSent
from comptoir.jobs import AttemptState, Fault, JobMoved, Lease, LiveJob
from comptoir.kinds import Resume
from comptoir.kit.errors import Refusal, Unavailable
from comptoir.link import Done, Fail, Frames

FASTER = "another host was faster"


def hedging(core: Core) -> None:
    """Start second hosts from now on, if the settings enable it."""

    def sent(event: JobSent) -> None:
        job = core.jobs.live.get(event.job_id)
        if job is not None and job.lease is not None and job.lease.id == event.lease_id:
            hedge_later(core, job, job.lease)

    if core.settings.hedge:
        core.events.subscribe(JobSent, sent)


def hedge_later(core: Core, job: LiveJob, lease: Lease) -> None:
    """Schedule a second host for when the first frame is later than this host's 95th percentile."""
    if not core.settings.hedge or not job.kind.may_hedge:
        return
    host = core.fleet.find(lease.host_id)
    if host is not None and host.reach.stops_at_once:
        wait_s = core.fleet.pace(lease.host_id, lease.model).first_frame_p95_ms / 1000
        asyncio.get_running_loop().call_later(wait_s, begin, core, job, lease)


def begin(core: Core, job: LiveJob, lease: Lease) -> None:
    """Start a second host beside *lease*, if no frame has come on it yet and a host of this coordinator is free."""
    if job.lease is not lease or job.closing or job.hedge is not None or len(job.frames) > lease.first_frame:
        return
    if job.kind.resume(job) is Resume.NEVER:
        return  # The first host may be causing side effects, even if it is late.
    spec = spec_now(core, job)
    # Speed is not worth a new quote: the second host has to be within what is held.
    held_uusd = job.kind.part(job).hold_uusd
    wanted = replace(spec, deny=spec.deny | {lease.host_id}, stoppable=True, price_cap_uusd=held_uusd)
    candidate = reserve_host(core, wanted, here=True)
    if candidate is None:
        return
    second = new_lease(core, job, candidate)
    channel = core.channels.get(second.host_id)
    if channel is None or not channel.send_job(job, second):
        core.fleet.release(second.host_id)
        return
    job.begin_hedge(second)
    core.state(Hedges).by_lease[second.id] = Hedge(job, second)


def heard(
    core: Core, host_id: bytes, message: Frames | Done | Fail, replay: Callable[[Frames | Done | Fail], None]
) -> None:
    """Handle a message of the second host: its first frames win it the job; an end without frames drops it.

    Args:
        replay: called with the messages again, in order, once the second host holds the job.
    """
    hedge = core.state(Hedges).by_lease[message.lease]
    if hedge.lease.host_id != host_id:
        return
    if hedge.winning:
        hedge.waiting.append(message)
    elif isinstance(message, Frames) and message.items:
        hedge.winning = True
        hedge.waiting.append(message)
        core.background.spawn(_win(core, hedge, replay))
    else:
        drop_hedge(core, hedge.job, "it ended without a frame")


async def _win(core: Core, hedge: Hedge, replay: Callable[[Frames | Done | Fail], None]) -> None:
    job, second = hedge.job, hedge.lease
    try:
        if not await _hand_over(core, hedge):
            drop_hedge(core, job, "the job was not to be had")
            return
    finally:
        core.state(Hedges).by_lease.pop(second.id, None)
    for message in hedge.waiting:
        replay(message)


async def _hand_over(core: Core, hedge: Hedge) -> bool:
    """Close the first host's attempt and begin the second's, durably; False: the job ended or moved, or no database."""
    job, first, second = hedge.job, hedge.job.lease, hedge.lease
    if first is None or job.closing or job.hedge is not second or len(job.frames) > first.first_frame:
        return False
    try:
        await requeue(core, job, first, FASTER, fault=Fault.NONE, state=AttemptState.FAILED, unpaid=False)
    except Unavailable:
        return False
    if job.hedge is not second or job.closing or job.over or job.refused or job.owner_node:
        return False
    # From here on the slot belongs to the new lease.
    job.end_hedge()
    try:
        await write_lease(core, job, second, from_id=core.node_id)
    except Refusal as refusal:
        if isinstance(refusal, JobMoved):
            core.peers.moved(job)
        elif (
            isinstance(refusal, Unavailable) and job.lease is None and not job.closing and job.id not in core.jobs.queue
        ):
            enqueue(core, job, spec_now(core, job), first=True)
        return False
    if job.lease is not second or job.closing:
        return False
    job.begin_running(second)
    tell_bound(core, job)  # It may have grown since the second host was given the job.
    return True
