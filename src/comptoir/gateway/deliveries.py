"""What hosts deliver by HTTP requests: finding the job, and accepting its frames. The same for every dialect."""

from functools import partial

from comptoir.dispatch import Core
from comptoir.dispatch.artifacts import taken
from comptoir.dispatch.deferred_settlements import retry_when_db_returns
from comptoir.dispatch.errors import AnswerTooLarge, BadFrame
from comptoir.dispatch.stream import fail, take_frames, unfit
from comptoir.gateway.stopping import require_local_owner
from comptoir.hosts import Host
from comptoir.jobs import LiveJob, NotYourLease, UnknownJob
from comptoir.kit.ids import parse
from comptoir.link import Frame


def job_named(text: str) -> bytes:
    """Return the id of a job by its public name.

    Raises:
        UnknownJob: *text* is not such a name.
    """
    job_id = parse("job", text)
    if job_id is None:
        raise UnknownJob
    return job_id


async def leased_to(core: Core, host: Host, job_id: bytes, *, lease: bytes | None = None) -> LiveJob:
    """Return the job that *host* holds the lease on.

    Args:
        lease: the lease must be this one, because a delivery may be for an earlier attempt.

    Raises:
        OwnedByPeer: another coordinator owns the job.
        NotYourLease: the host has no such lease on it, or no longer.
    """
    job = core.jobs.live.get(job_id)
    if job is None:
        await require_local_owner(core, job_id)
    if job is None or job.closing or job.lease is None or job.lease.host_id != host.id:
        raise NotYourLease
    if lease is not None and job.lease.id != lease:
        raise NotYourLease
    return job


async def accept_frames(core: Core, job: LiveJob, frames: list[Frame], *, seq: int | None) -> int:
    """Append frames from number *seq* on (None: after the last one); return the number of the next one expected.

    An answer that grows too large, or can't be passed on, fails the attempt before it is refused.

    Raises:
        FramesOutOfOrder: *seq* leaves a gap; nothing is taken. AnswerTooLarge, BadFrame: the attempt is over.
        NotYourLease: it was lost while files that the frames name were looked for. Unavailable: they can't be.
    """
    assert job.lease is not None, "frames come through a lease"
    core.fleet.seen(job.lease.host_id)
    lease = job.lease

    def take() -> int:
        if job.lease is not lease or job.closing:
            raise NotYourLease
        return take_frames(core, job, len(job.frames) if seq is None else seq, frames)

    try:
        return await taken(core, job, take)
    except (AnswerTooLarge, BadFrame) as error:
        code, fault = unfit(job, error)
        failed = partial(fail, core, job, code=code, message=error.message, fault=fault, measured=True)
        await retry_when_db_returns(core, job, failed)
        raise
