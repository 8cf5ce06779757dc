"""Jobs that the database lost the end of, or knows nothing of any more, written as their receipts state them.

What a receipt does not say stays unknown: the request and the answer, and why a job failed. `ANSWER_LOST` marks it.
"""

from collections.abc import Sequence, Set

import msgspec

from comptoir.jobs.errors import ANSWER_LOST_MESSAGE
from comptoir.jobs.tables import ATTEMPTS, JOB_EVENTS, JOBS
from comptoir.jobs.types import FINAL, AttemptState, JobState
from comptoir.kinds import Terms
from comptoir.kit.db import Tx

ANSWER_LOST = "answer_lost"
"""Error code of a job that was brought back by its receipt, whatever its state."""

ENDED_COLUMNS = (
    "state", "finished_ms", "started_ms", "host_id", "attempt_id", "prompt_tokens", "completion_tokens", "hold_uusd",
    "cost_uusd", "finish_reason", "fault", "error_code", "error_message",
)  # fmt: skip

ATTEMPT_COLUMNS = ("state", "end_frame", "tokens", "paid_uusd", "ended_ms", "chain", "signature", "prompt_tokens")


class StatedAttempt(msgspec.Struct, frozen=True):
    """One host's part as a receipt states it."""

    id: bytes
    host_id: bytes
    done: bool
    """Whether the host ended its part itself; otherwise it was lost or stopped before it could."""
    first_frame: int
    end_frame: int
    count: int
    input_count: int
    paid_uusd: int
    running_hash: bytes
    signature: bytes | None
    rate_in: int
    rate_out: int


class StatedJob(msgspec.Struct, frozen=True):
    """A job that is over, as its receipt states it."""

    id: bytes
    owner_id: bytes
    dialect: str
    kind: str
    model: str
    state: JobState
    """One of `FINAL`."""
    terms: Terms
    created_ms: int
    started_ms: int | None
    finished_ms: int
    input_count: int
    output_count: int
    cost_uusd: int
    finish_reason: str
    attempts: tuple[StatedAttempt, ...]
    node_id: bytes
    """Coordinator that writes it."""
    staged: bool = False
    """Whether jobs of its kind have stages."""


def write_stated(tx: Tx, jobs: Sequence[StatedJob], *, stored: Set[bytes]) -> None:
    """Write *jobs* (at most 500): those of *stored*, none of which is over, are ended; the others are inserted.

    The caller has locked the stored ones (`load_states`).
    """
    ids = [job.id for job in jobs]
    marks = ",".join("?" * len(ids))
    sql = f"SELECT job_id, MAX(seq) FROM job_events WHERE job_id IN ({marks}) GROUP BY job_id"
    seq = {bytes(row[0]): int(row[1]) + 1 for row in tx.fetch(sql, ids)}
    fresh = [job for job in jobs if job.id not in stored]
    events: list[tuple[object, ...]] = []
    for job in jobs:
        at = seq.get(job.id, 0)
        if not at:
            events.append((job.id, at, JobState.QUEUED.value, job.created_ms, None))
            at += 1
        events.append((job.id, at, job.state.value, job.finished_ms, ANSWER_LOST))
    if fresh:
        tx.insert(JOBS, [_row(job) for job in fresh])
    if stored:
        tx.update(JOBS, ENDED_COLUMNS, [(job.id, *_ended(job)) for job in jobs if job.id in stored])
        tx.execute(f"DELETE FROM journal WHERE job_id IN ({marks})", ids)
    tx.insert(JOB_EVENTS, events)
    _write_attempts(tx, jobs)


def _ended(job: StatedJob) -> tuple[object, ...]:
    last = job.attempts[-1] if job.attempts else None
    return (
        job.state.value, job.finished_ms, job.started_ms, last.host_id if last else None, last.id if last else None,
        job.input_count, job.output_count, job.terms.hold_uusd, job.cost_uusd, job.finish_reason or None, None,
        ANSWER_LOST, ANSWER_LOST_MESSAGE,
    )  # fmt: skip


def _row(job: StatedJob) -> tuple[object, ...]:
    assert job.state in FINAL
    known = {
        "id": job.id, "owner_id": job.owner_id, "dialect": job.dialect, "kind": job.kind, "model": job.model,
        "body": b"", "prompt_tokens_max": job.terms.input_max, "max_tokens": job.terms.output_max,
        "price_in_uusd_per_mtok": job.terms.rate_in, "price_out_uusd_per_mtok": job.terms.rate_out,
        "detached": 1, "deadline_ms": job.finished_ms, "created_ms": job.created_ms, "node_id": job.node_id,
        # Empty, not NULL, as of a chain whose contents were deleted: that it is there marks a chain.
        "caller": "" if job.staged else None,
        **dict(zip(ENDED_COLUMNS, _ended(job), strict=True)),
    }  # fmt: skip
    return tuple([known.get(name) for name in JOBS.names])


def _write_attempts(tx: Tx, jobs: Sequence[StatedJob]) -> None:
    """Write the attempts; those that the database still has open and no receipt names were lost."""
    known = tx.select(ATTEMPTS, ("id", "job_id", "state"), [job.id for job in jobs], by="job_id")
    stored = {bytes(row[0]) for row in known}
    stated = {attempt.id for job in jobs for attempt in job.attempts}
    ends = {job.id: job.finished_ms for job in jobs}
    lost = [
        (attempt_id, AttemptState.LOST.value, ends[bytes(job_id)])
        for attempt_id, job_id, state in known
        if state not in (AttemptState.DONE, AttemptState.FAILED, AttemptState.LOST) and bytes(attempt_id) not in stated
    ]
    rows = [(job, attempt) for job in jobs for attempt in job.attempts]
    fresh = [_attempt_row(job, attempt) for job, attempt in rows if attempt.id not in stored]
    held = [(one.id, *_delivered(one, job.finished_ms)) for job, one in rows if one.id in stored]
    if lost:
        tx.update(ATTEMPTS, ("state", "ended_ms"), lost)
    if fresh:
        tx.insert(ATTEMPTS, fresh)
    if held:
        tx.update(ATTEMPTS, ATTEMPT_COLUMNS, held)


def _attempt_row(job: StatedJob, attempt: StatedAttempt) -> tuple[object, ...]:
    known = {
        "id": attempt.id, "job_id": job.id, "host_id": attempt.host_id, "first_frame": attempt.first_frame,
        "started_ms": job.started_ms or job.created_ms, "price_in_uusd_per_mtok": attempt.rate_in,
        "price_out_uusd_per_mtok": attempt.rate_out,
        **dict(zip(ATTEMPT_COLUMNS, _delivered(attempt, job.finished_ms), strict=True)),
    }  # fmt: skip
    return tuple([known.get(name) for name in ATTEMPTS.names])


def _delivered(attempt: StatedAttempt, ended_ms: int) -> tuple[object, ...]:
    """Return `ATTEMPT_COLUMNS`."""
    state = AttemptState.DONE if attempt.done else AttemptState.LOST
    return (
        state.value, attempt.end_frame, attempt.count, attempt.paid_uusd, ended_ms, attempt.running_hash,
        attempt.signature, attempt.input_count or None,
    )  # fmt: skip
