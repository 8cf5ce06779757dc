"""Cancel: the buyer cancelled or hung up. The host stops at once; delivered units are paid, the rest is released."""

from comptoir.dispatch.core import Core
from comptoir.dispatch.settle import Ending, finish
from comptoir.jobs import AttemptState, Fault, JobFinished, JobState, LiveJob


async def cancel(core: Core, job: LiveJob, *, reason: str = "cancelled by the buyer") -> None:
    """Stop *job* and settle what was delivered.

    Idempotent: a job that is already ending is left to end.

    Raises:
        JobFinished: the job is over.
        Unavailable: the database is unavailable; the job is cancelled when it is back.
    """
    if job.over:
        raise JobFinished(job.state)
    if is_remote(job):
        core.peers.stop(job, reason)
        return
    tell_host_to_stop(core, job, reason)
    ending = Ending(
        JobState.CANCELLED,
        attempt_state=AttemptState.FAILED,
        fault=Fault.BUYER,
        code="cancelled",
        message=reason,
        finish_reason="cancelled",
    )
    await finish(core, job, ending)
    if is_remote(job):
        # It moved to another coordinator at the same moment.
        core.peers.stop(job, reason)


def hang_up(core: Core, job: LiveJob) -> None:
    """The client of an attached job is gone: tell the host to stop at once, and cancel the job in the background."""
    if not job.over and not job.closing:
        tell_host_to_stop(core, job, "the client hung up")
        core.background.spawn(_cancel_quietly(core, job))


def tell_host_to_stop(core: Core, job: LiveJob, reason: str) -> None:
    """Send Cancel through the channel of the job's host, if it has one."""
    lease = job.lease
    if lease is not None:
        channel = core.channels.get(lease.host_id)
        if channel is not None:
            channel.cancel(lease, reason)


async def _cancel_quietly(core: Core, job: LiveJob) -> None:
    if not job.over:
        await cancel(core, job, reason="the client hung up")


def is_remote(job: LiveJob) -> bool:
    """Tell whether another coordinator owns *job* now; this may change with every write."""
    return bool(job.owner_node)
