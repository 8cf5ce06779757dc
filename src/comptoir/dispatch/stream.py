"""Stream: take what a host sends on a lease, in order, into the job's frames; and end the attempt when it says so."""

import logging

from comptoir.dispatch.advance import advance
from comptoir.dispatch.assign import nobody_left, revoke_lease
from comptoir.dispatch.core import Core
from comptoir.dispatch.errors import AnswerTooLarge, BadSegment, FramesOutOfOrder
from comptoir.dispatch.meters import Meters
from comptoir.dispatch.second_host import drop_hedge
from comptoir.dispatch.settle import Ending, finish
from comptoir.jobs import AttemptState, Fault, JobState, LiveJob, NotYourLease
from comptoir.link import Frame, Usage

log = logging.getLogger(__name__)

CANNOT_CONTINUE = "cannot_continue"
"""Code of an engine that can't go on from another host's frames, and said so before its first own."""

RETRY_AFTER_MAX_S = 3600.0
"""Longest time that a host can have its buyer told to wait; beyond a float's reach it was an internal error."""

STOPPED = "cancelled"
"""Finish reason of a worker that stopped because we told it to: how far it came, not that it is done."""

FAULTS = {"buyer": Fault.BUYER, "host": Fault.HOST, "capacity": Fault.CAPACITY, "coordinator": Fault.COORDINATOR}
"""Attribution as workers spell it; anything else is the host's."""


def leased_job(core: Core, host_id: bytes, lease: bytes) -> LiveJob:
    """Return the job that *host_id* holds *lease* on.

    Raises:
        NotYourLease: it never had it, or lost it.
    """
    job = core.jobs.live.by_lease(lease)
    if job is None or job.lease is None or job.lease.host_id != host_id:
        raise NotYourLease
    return job


def fault_of_size(job: LiveJob) -> Fault:
    """Return whose fault an answer is that is larger than its job may hold."""
    # The outputs of stages before count too, which this host has not made; no other host could help it.
    return Fault.BUYER if job.kind.stage(job) else Fault.HOST


def take_frames(core: Core, job: LiveJob, seq: int, items: list[Frame]) -> int:
    """Append frames ``seq, seq+1, …`` to the job; return the number of the next frame wanted.

    Idempotent: frames already held are skipped.

    Raises:
        FramesOutOfOrder: *seq* leaves a gap; nothing is taken.
        AnswerTooLarge: more text or units than the job may have; nothing is taken, the attempt should be failed.
    """
    lease = job.lease
    assert lease is not None, "frames come through a lease"
    held = len(job.frames)
    if seq > held:
        raise FramesOutOfOrder(expected=held, got=seq)
    fresh = items[held - seq :] if seq < held else items
    now = core.clock.monotonic_s()
    if not fresh:
        lease.touch(now)
        return held
    before = count = job.count
    for frame in fresh:
        count += frame.tokens
    most = job.terms.output_max
    if most and count > most + job.kind.output_over_max:
        many = job.kind.output.many
        raise AnswerTooLarge(f"the host sent {count} {many} and {most} were asked for")
    if not job.append(fresh, bytes_max=core.settings.answer_bytes_max):
        raise AnswerTooLarge("the answer is larger than a job may hold")
    core.state(Meters).count_frames(len(fresh), job.kind.output.name, count - before)
    fleet = core.fleet
    if held == lease.first_frame:
        job.note_first_frame(now)
        if job.hedge is not None:
            drop_hedge(core, job, "the first host delivered")
        fleet.first_frame(lease.host_id, lease.model, (now - lease.started_s) * 1000)
    else:
        fleet.frames(lease.host_id, lease.model, (now - lease.touched_s) * 1000 / len(fresh), len(fresh))
    lease.touch(now)
    return held + len(fresh)


def clamped(value: float, most: float) -> float:
    """Return *value* within 0 and *most*; what is no number is 0."""
    return min(max(0.0, value), most) if value == value else 0.0


async def complete(
    core: Core, job: LiveJob, *, finish_reason: str, usage: Usage, signature: bytes = b"", running_hash: bytes = b""
) -> None:
    """End *job* as answered in full, or its stage.

    *signature* and *running_hash* come from hosts that sign; they are checked first.

    A worker that only stopped (`STOPPED`) ends its attempt and not the job, which goes on elsewhere.

    Raises:
        BadSegment: they don't match; the attempt is ended as the host's fault.
        Unavailable: the database is out of reach; the end is written when it is back.
    """
    lease = job.lease
    assert lease is not None, "an end comes through a lease"

    async def dishonest(bad: BadSegment) -> None:
        await fail(core, job, code="bad_segment", message=str(bad), fault=Fault.HOST, unpaid=True)

    try:
        if running_hash and running_hash != job.running_hash:
            raise BadSegment("the host's running hash differs from the frames it sent")
        if lease.signs and not signature:
            raise BadSegment("the host has a key and did not sign")
        if finish_reason == STOPPED:
            # Whoever told it to stop had died, or could not write why: the answer is no answer, and the host not to blame.
            await revoke_lease(core, job, lease, "it was told to stop", fault=Fault.COORDINATOR)
            return
        if wrong := job.wrong_output(finish_reason=finish_reason, usage=usage):
            raise BadSegment(wrong)
        if not job.on_last_stage:
            await advance(core, job, finish_reason=finish_reason, usage=usage, signature=signature)
            return
        ending = Ending(JobState.COMPLETED, finish_reason=finish_reason, usage=usage, signature=signature)
        await finish(core, job, ending, dishonest=dishonest)
    except BadSegment as bad:
        await dishonest(bad)
        raise


async def fail(
    core: Core,
    job: LiveJob,
    *,
    code: str,
    message: str,
    fault: Fault,
    status: int = 0,
    body: bytes = b"",
    retry_after_s: float = 0.0,
    unpaid: bool = False,
) -> None:
    """End the attempt as failed.

    If the buyer is not to blame the job goes on at another host, after what was delivered. *unpaid* keeps what this host
    delivered from being paid. What a host says in numbers is cut to what can be passed on.

    Args:
        status: of HTTP; any other number is none.
        retry_after_s: at most `RETRY_AFTER_MAX_S`; what is no time is 0.

    Raises:
        Unavailable: the database is out of reach; call again.
    """
    status = status if 100 <= status <= 599 else 0
    retry_after_s = clamped(retry_after_s, RETRY_AFTER_MAX_S)
    lease = job.lease
    assert lease is not None, "a failure comes through a lease"
    if code == CANNOT_CONTINUE and 0 < lease.first_frame == len(job.frames):
        # It says so at once, which is all that can be asked of it: the job goes on elsewhere, and nobody is blamed.
        job.note_unable(lease.host_id)
        over = nobody_left(job, message, fault=Fault.CAPACITY, state=AttemptState.FAILED)
        await revoke_lease(core, job, lease, message, fault=Fault.NONE, ending=over)
        return
    if fault == Fault.COORDINATOR and lease.revived and len(job.frames) == lease.first_frame:
        # The frames it had delivered died with the process before this one: it starts over, on this host or another.
        await revoke_lease(core, job, lease, message, fault=fault)
        return
    message = job.kind.failure(message, body)
    ending = Ending(
        JobState.FAILED,
        attempt_state=AttemptState.FAILED,
        fault=fault,
        code=code,
        message=message,
        status=status,
        body=body,
        retry_after_s=retry_after_s,
        unpaid=unpaid,
    )
    if fault in (Fault.HOST, Fault.CAPACITY):
        await revoke_lease(core, job, lease, message, fault=fault, ending=ending, unpaid=unpaid)
    else:
        await finish(core, job, ending)
