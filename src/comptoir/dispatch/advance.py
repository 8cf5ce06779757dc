"""Advance: a stage of a job is done; close its attempt, durably, and give the job to a host of the next stage.

The stage's output becomes a segment of one frame, signed by the host. It is kept in the journal until the job ends and
all its hosts are paid in one command. If a later host is lost, its stage gets this output again; finished stages never
run twice.
"""

from comptoir.dispatch.assign import SignedStage, enqueue, requeue, reserve_host, spec_of, start
from comptoir.dispatch.core import Core
from comptoir.dispatch.second_opinion import count_false_accusers
from comptoir.dispatch.settle import segment_of
from comptoir.jobs import AttemptState, Fault, LiveJob
from comptoir.link import SEGMENT_PAYLOAD_TYPE, Usage, pae
from comptoir.receipts import statement_bytes


async def advance(core: Core, job: LiveJob, *, finish_reason: str, usage: Usage, signature: bytes) -> None:
    """End the attempt at a stage that was not the last, and start the next stage on its output.

    Raises:
        BadSegment: the host's signature does not verify; the lease stays open.
        Unavailable: the database is unavailable; the lease stays open, and the host has to report the end again.
    """
    lease = job.lease
    assert lease is not None and not job.on_last_stage
    delivered = None
    if signature:
        public_key = core.fleet.get(lease.host_id).row.public_key or b""
        signed = pae(SEGMENT_PAYLOAD_TYPE, statement_bytes(segment_of(job, lease, finish_reason, usage)))
        delivered = SignedStage(signature, signed, public_key)
    await requeue(core, job, lease, "", fault=Fault.NONE, state=AttemptState.DONE, unpaid=False, delivered=delivered)
    if job.refused or job.over or job.owner_node or job.closing:
        return
    # What it earns is settled, and counted, with the last stage.
    core.fleet.outcome(lease.host_id, "done", buyer=job.owner_id, tokens=job.segments[-1].count)
    count_false_accusers(core, job, answered_by=lease.host_id)
    job.begin_stage()
    spec = spec_of(job)
    candidate = reserve_host(core, spec)
    if candidate is not None:
        await start(core, job, candidate)
    else:
        enqueue(core, job, spec, first=True)
