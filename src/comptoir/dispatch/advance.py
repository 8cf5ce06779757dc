"""Advance: a stage of a job is done; close its attempt, durably, and give the job to a host of the next one.

What it made becomes a segment of one frame, with the host's signature, and waits in the journal for the end of the job, when all
its hosts are paid in one command. Whatever is lost from here on, the next stage gets this output again; none before it runs
twice.
"""

from comptoir.dispatch.assign import SignedStage, enqueue, requeue, reserve_host, spec_of, start
from comptoir.dispatch.core import Core
from comptoir.dispatch.settle import segment_of
from comptoir.jobs import AttemptState, Fault, LiveJob
from comptoir.link import SEGMENT_PAYLOAD_TYPE, Usage, pae
from comptoir.receipts import statement_bytes


async def advance(core: Core, job: LiveJob, *, finish_reason: str, usage: Usage, signature: bytes) -> None:
    """End the attempt at a stage that was not the last, and start the next one on its output.

    Raises:
        BadSegment: the host's signature is not its own; the lease stands.
        Unavailable: the database is out of reach; the lease stands, and the host repeats what it said.
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
    core.fleet.outcome(lease.host_id, "done", tokens=job.segments[-1].count)
    job.begin_stage()
    spec = spec_of(job)
    candidate = reserve_host(core, spec)
    if candidate is not None:
        await start(core, job, candidate)
    else:
        enqueue(core, job, spec, first=True)
