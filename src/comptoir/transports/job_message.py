"""The message that gives a job to a host, from which every transport and shape makes its own."""

from comptoir.jobs import Lease, LiveJob
from comptoir.link import COUNT_MAX, Job


def bound_of(job: LiveJob) -> int:
    """Return the most units of the answer that its next or present host is told; 0: only the body limits it."""
    most = job.terms.output_max
    if job.stages:  # A host runs only its own stage, after the output of those before it.
        most = job.count - job.segment_count + job.kind.part(job).output_max
    if most:
        # It deducts what the frames before its own say, also where a host said more than it is paid for.
        most = min(most + job.claimed_beyond, COUNT_MAX)
    return most


def job_message(job: LiveJob, lease: Lease, *, now_ms: int, grows_to: int = 0) -> Job:
    """Return the job as a link message, including the frames delivered before, if it continues from there.

    Args:
        grows_to: what its bound may grow to while the host is at it; no more than it is: not at all.
    """
    most = bound_of(job)
    grows_to = min(grows_to + job.claimed_beyond, COUNT_MAX) if job.grows else 0
    return Job(
        lease.id,
        job.id,
        job.kind.name,
        job.model,
        job.body,
        job.deadline_ms,
        lease.first_frame,
        job.frames[: lease.first_frame],
        lease.hash_before if lease.first_frame else b"",
        most,
        max(1, job.deadline_ms - now_ms),
        grows_to if grows_to > most else 0,
    )
