"""Recover: take up after a restart what the database says is unfinished. No accepted job is lost, no hold forgotten."""

import logging
from collections.abc import Sequence

from comptoir.dispatch.assign import lose, spec_of
from comptoir.dispatch.house import House
from comptoir.dispatch.settle import Ending, finish
from comptoir.dispatch.submit import queue_up
from comptoir.hosts import LINK
from comptoir.jobs import AttemptState, Fault, JobRow, JobState, Lease, LiveJob

log = logging.getLogger(__name__)


async def recover(house: House) -> int:
    """Take up every unfinished job; return how many there were. Call it once, before serving, where no other coordinator is.

    A job whose buyer waited on the line is ended (its connection died with the old process) and its hold released. A detached job
    waits in line again; if a worker holds its lease, it may come back and re-send its frames until the lease runs out.
    """
    taken = 0
    owners = list(await house.jobs.owners())
    while rows := await house.jobs.take_over(node_id=house.node_id, of=owners) if owners else []:
        taken += len(rows)
        await take_up(house, rows)
    if taken:
        log.info("took up %d unfinished jobs", taken)
    return taken


async def take_up(house: House, rows: Sequence[JobRow]) -> None:
    """Go on with jobs that this coordinator has just become the owner of."""
    for row in rows:
        job = await _revive(house, row)
        house.jobs.live.add(job)
        house.enter(job.owner_id)
        if not job.detached:
            ending = Ending(
                JobState.FAILED, attempt_state=AttemptState.LOST, fault=Fault.COORDINATOR, code="coordinator_restarted",
                message="the coordinator restarted while the client was waiting; nothing was charged", status=503,
            )  # fmt: skip
            await finish(house, job, ending)
        elif job.lease is None:
            queue_up(house, job, spec_of(job))
        elif not _keeps_frames(house, job.lease):
            # A polling or pushed host keeps no frames to send again: start over on whoever is free.
            await lose(house, job, job.lease, "the coordinator restarted", fault=Fault.COORDINATOR)


def _keeps_frames(house: House, lease: Lease) -> bool:
    return house.fleet.get(lease.host_id).row.transport == LINK


async def _revive(house: House, row: JobRow) -> LiveJob:
    now_s = house.clock.monotonic_s()
    job = LiveJob.revived(row, now_s=now_s)
    job.state = JobState.QUEUED
    job.events = await house.jobs.events_count(row.id)
    host = house.fleet.find(row.host_id) if row.host_id is not None else None
    if row.state == JobState.RUNNING and row.attempt_id is not None and host is not None:
        candidate = host.candidates.get(row.model)
        lease = Lease(
            id=row.attempt_id, host_id=host.id, model=row.model, first_frame=0,
            price_in=candidate.price_in_uusd_per_mtok if candidate else row.price_in_uusd_per_mtok,
            price_out=candidate.price_out_uusd_per_mtok if candidate else row.price_out_uusd_per_mtok,
            started_ms=row.started_ms or row.created_ms, started_s=now_s, signs=host.row.public_key is not None,
        )  # fmt: skip
        lease.revived = True
        job.state = JobState.RUNNING
        house.jobs.live.open_lease(job, lease)
        house.fleet.adopt(host.id)
    return job
