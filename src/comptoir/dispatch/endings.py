"""Endings: how a job ends that no host can continue, or that none is there for."""

from comptoir.dispatch.errors import AWAY_RETRY_S, HostsAway
from comptoir.dispatch.settle import Ending
from comptoir.jobs import AttemptState, Fault, JobState, LiveJob


def nobody_left(job: LiveJob, why: str, *, fault: Fault, state: AttemptState = AttemptState.LOST) -> Ending:
    """Return the ending of a job that no host can continue."""
    code = "host_lost" if job.frames else "no_host_left"
    message = f"the host was lost: {why}" if job.frames else f"no host could run the job: {why}"
    return Ending(JobState.FAILED, attempt_state=state, fault=fault, code=code, status=502, message=message)


def no_host_here(job: LiveJob) -> Ending:
    """Return the ending of a job whose possible hosts have all been offline for too long."""
    if job.has_partial_stage:
        return nobody_left(job, "every host that could go on is offline", fault=Fault.CAPACITY)
    return Ending(
        JobState.FAILED,
        attempt_state=AttemptState.LOST,
        fault=Fault.CAPACITY,
        code="hosts_away",
        message=str(HostsAway(job.model)),
        status=503,
        retry_after_s=AWAY_RETRY_S,
    )
