"""Recover: resume unfinished jobs from the database after a restart. No accepted job is lost, no hold forgotten."""

import logging
from collections.abc import Iterable

from comptoir.dispatch.assign import revoke_lease, spec_now
from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.cancel import tell_host_to_stop
from comptoir.dispatch.core import Core
from comptoir.dispatch.on_request import ToldOfStarts
from comptoir.dispatch.settle import Ending, finish
from comptoir.dispatch.submit import assign_or_enqueue
from comptoir.jobs import AttemptState, Fault, JobRow, JobState, Lease, LiveJob

log = logging.getLogger(__name__)


async def recover(core: Core) -> int:
    """Resume every unfinished job; return how many there were. For a single coordinator: call once, before serving.

    An attached job is ended and its hold released, because its client's connection died with the old process. A
    detached job is queued again; if a worker holds its lease, it may reconnect and resend its frames until the lease
    expires.
    """
    taken = 0
    owners = list(await core.jobs.owners())
    while rows := await core.jobs.claim_orphans(node_id=core.node_id, of=owners) if owners else []:
        taken += len(rows)
        for row in rows:
            await resume_job(core, row)
    if taken:
        log.info("resumed %d unfinished jobs", taken)
    return taken


async def resume_job(
    core: Core,
    row: JobRow,
    *,
    known: LiveJob | None = None,
    tried: Iterable[bytes] = (),
    ceilings: Iterable[int] = (),
) -> LiveJob:
    """Resume a job that this coordinator has just become the owner of.

    Args:
        known: the job object that readers here hold; its frames were shown, so they are kept.
        tried: hosts that failed on it, as far as known.
        ceilings: `LiveJob.ceilings`, if its last owner was asked.
    """
    if not row.detached and row.home_id is not None:
        await core.peers.ensure_known(row.home_id)
    job = await _revive(core, row, known)
    job.note_tried(tried)
    job.may_cost(ceilings)
    core.jobs.live.add(job)
    core.state(Buyers).enter(job)
    if not job.kind.sold:
        await _end_unsold(core, job)
    elif not job.detached and not (job.home_id is not None and core.peers.is_alive(job.home_id)):
        ending = Ending(
            JobState.FAILED,
            attempt_state=AttemptState.LOST,
            fault=Fault.COORDINATOR,
            code="coordinator_restarted",
            message="the coordinator restarted while the client was waiting; nothing was charged",
            status=503,
            free=True,
        )
        await finish(core, job, ending)
    elif job.lease is None:
        assign_or_enqueue(core, job, spec_now(core, job))
    elif not _keeps_frames(core, job.lease):
        # Its frames died with the coordinator that had them: start over on any free host.
        await revoke_lease(core, job, job.lease, "the coordinator restarted", fault=Fault.COORDINATOR)
    return job


async def _end_unsold(core: Core, job: LiveJob) -> None:
    """End a job of a kind no longer sold: its work can't be counted or checked, nor is it known if it may rerun."""
    tell_host_to_stop(core, job, "its kind is no longer sold here")
    ending = Ending(
        JobState.FAILED,
        attempt_state=AttemptState.LOST,
        fault=Fault.COORDINATOR,
        code="unknown_kind",
        message=f"the kind {job.kind.name} is no longer sold here; nothing was charged",
        status=503,
        free=True,
    )
    await finish(core, job, ending)


def _keeps_frames(core: Core, lease: Lease) -> bool:
    host = core.fleet.find(lease.host_id)
    return host is not None and host.reach.keeps_frames


def _signs(core: Core, host_id: bytes) -> bool:
    host = core.fleet.find(host_id)
    return host is not None and host.row.public_key is not None


async def _revive(core: Core, row: JobRow, known: LiveJob | None) -> LiveJob:
    """Return the job as stored, with the frames of its closed segments, and under lease if a host holds one.

    Returns *known* itself if its frames are the beginning of the answer; if not, the caller has to end its readers.
    """
    now_s = core.clock.monotonic_s()
    job = core.jobs.revived(row, now_s=now_s)
    job.resume_events(events=await core.jobs.events_count(row.id))
    job.note_own_money(await core.ledger.holds_own_money(row.id))
    asked = await core.ledger.asked_events([row.owner_id])
    journal = (await core.jobs.journal([row.id])).get(row.id, [])
    leased = row.state == JobState.RUNNING and row.host_id is not None
    attempts = await core.jobs.attempts(row.id) if leased or journal or row.started_ms else []
    for host_id in {each.host_id for each in attempts}:
        if core.fleet.find(host_id) is None:
            await core.hosts.meet(host_id)
    if journal:
        signing = frozenset([each.host_id for each in attempts if _signs(core, each.host_id)])
        job.revive_segments(attempts, journal, signing=signing)
    attempt = next((each for each in attempts if each.id == row.attempt_id), None) if leased else None
    stage = job.kind.stage_start(job)
    accusers = [each.host_id for each in attempts if each.fault == Fault.BUYER and each.first_frame >= stage]
    first_frame, running_hash = len(job.frames), job.running_hash
    if known is not None and known.become_stored(job, open_attempt=attempt is not None):
        known.note_own_money(job.own_money)
        job = known
    core.state(ToldOfStarts).note(job, asked.get(row.owner_id, 0))
    job.accuse(accusers)
    if attempt is not None:
        lease = Lease.stored(
            attempt, row.terms, model=row.model, first_frame=first_frame, hash_before=running_hash, now_s=now_s,
            signs=_signs(core, attempt.host_id), revived=True,
        )  # fmt: skip
        core.jobs.live.reattach(job, lease)
        if job.kind.timed:
            # By the clock that all coordinators share: no process has a monotonic one from before it began.
            lease.begin(now_s - max(0, core.common_ms() - lease.started_ms) / 1000)
            job.note_time(now_s)  # Frames that are here already came without one.
        host = core.fleet.find(attempt.host_id)
        if host is not None and not host.node_id:
            core.fleet.adopt(host.id)
    return job
