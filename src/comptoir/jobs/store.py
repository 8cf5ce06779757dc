"""SQL of the jobs room: multi-row writes for the batch verbs of dispatch, and the columns each state change sets."""

from collections.abc import Iterable, Sequence

import msgspec

from comptoir.jobs.lease import Lease
from comptoir.jobs.tables import ANSWERS, ATTEMPTS, JOB_EVENTS, JOBS, JOURNAL
from comptoir.jobs.types import AttemptState, Fault, JobRow, JobState
from comptoir.kinds import Terms
from comptoir.kit.db import Table, Tx


class NewJob(msgspec.Struct, frozen=True):
    """Everything known about a job when it is accepted."""

    id: bytes
    owner_id: bytes
    dialect: str
    kind: str
    model: str
    body: bytes
    terms: Terms
    detached: bool
    deadline_ms: int
    created_ms: int
    node_id: bytes
    """Coordinator that owns it."""
    home_id: bytes | None = None
    """Coordinator that the client of an attached job is connected to."""
    caller: str | None = None
    """The caller's IP address, if it matters."""
    steps: bytes | None = None
    """The stages, encoded."""
    needs: bytes | None = None
    """Its requirements on a host, encoded."""
    whole: int | None = None
    """1: its buyer gets the answer whole or not at all; None: piece by piece."""


class Start(msgspec.Struct, frozen=True):
    """A host gets a lease on a queued job."""

    job_id: bytes
    attempt_id: bytes
    host_id: bytes
    first_frame: int
    at_ms: int
    event_seq: int
    node_id: bytes
    """Coordinator that leases it, and owns it from then on."""
    from_id: bytes
    """Coordinator that owned it until now."""
    rate_in: int
    """The chosen host's price, in micro-dollars per million units."""
    rate_out: int
    buyer_id: bytes = b""
    """The job's owner, if that is to be told (`events.JobAssigned`)."""


class FinishRow(msgspec.Struct, frozen=True):
    """The end of a job, or of one attempt at it, with what that attempt delivered."""

    job_id: bytes
    state: JobState
    at_ms: int
    event_seq: int
    attempt_id: bytes | None
    attempt_state: AttemptState
    host_id: bytes | None
    end_frame: int
    input_count: int
    """Units of input of the whole job."""
    output_count: int
    """Units of output of the whole job."""
    cost_uusd: int
    paid_uusd: int
    """To the host of this attempt."""
    finish_reason: str
    fault: Fault
    error_code: str
    error_message: str
    running_hash: bytes
    signature: bytes
    frames: bytes
    """The whole answer, encoded by `LiveJob.encode_frames`; if only the attempt ends, its part. Empty: nothing was
    delivered."""
    usage: bytes
    node_id: bytes
    """Coordinator that ends it: only its owner may."""
    count: int
    """Units delivered by this attempt."""
    first_frame: int = 0
    """Where this attempt's part begins."""
    attempt_input_count: int | None = None
    """The input as this attempt's host counted it; None: it did not say."""
    earlier: tuple[tuple[bytes, int], ...] = ()
    """Earlier attempts that delivered something, and what each earns."""
    restarts: int = 0
    """How often the answer restarted."""
    model: str = ""
    """If the job continues: the model (or that of the stage) that it waits for."""


class StoredState(msgspec.Struct, frozen=True):
    """What compare-and-set needs to know about a stored job."""

    state: str
    attempt_id: bytes | None
    owner_id: bytes
    node_id: bytes | None


LIGHT = ",".join("NULL" if name == "body" else name for name in JOBS.names)
"""All columns but the body, which may be megabytes."""

LIGHT_NAMES = tuple([name for name in JOBS.names if name != "body"])

LATER = ("finished_ms", "finish_reason", "fault", "error_code", "error_message", "restarts")
ACCEPTED_COLUMNS = tuple([name for name in JOBS.names if name not in LATER])
LEASED_COLUMNS = (
    "id", "job_id", "host_id", "state", "first_frame", "end_frame", "tokens", "paid_uusd", "started_ms",
    "price_in_uusd_per_mtok", "price_out_uusd_per_mtok",
)  # fmt: skip
ENTERED_COLUMNS = ("job_id", "seq", "state", "at_ms")
"""What is written of a job, an attempt and an event when they begin; the other columns are NULL until something is said
there, and each NULL that is bound takes 0.1 us."""

QUEUED, RUNNING, LEASED = JobState.QUEUED.value, JobState.RUNNING.value, AttemptState.LEASED.value
"""As they are bound: for a member of an enum sqlite3 looks in vain for an adapter, which takes 0.5 us."""

START_COLUMNS = ("state", "host_id", "attempt_id", "started_ms", "node_id")
FINISH_COLUMNS = (
    "state", "finished_ms", "prompt_tokens", "completion_tokens", "cost_uusd", "finish_reason", "fault", "error_code",
    "error_message",
)  # fmt: skip
ATTEMPT_END_COLUMNS = (
    "state", "end_frame", "tokens", "paid_uusd", "ended_ms", "fault", "chain", "signature", "prompt_tokens",
)  # fmt: skip


def load_states(tx: Tx, job_ids: Sequence[bytes]) -> dict[bytes, StoredState]:
    """Return and lock the stored state of each job that exists: another coordinator might be taking it over."""
    return {
        row[0]: StoredState(row[1], row[2], row[3], row[4])
        for row in tx.select(JOBS, ("id", "state", "attempt_id", "owner_id", "node_id"), job_ids, lock=True)
    }


def job_rows(job_ids: Iterable[bytes]) -> tuple[Table, Iterable[bytes]]:
    """Return the rows that `load_states` locks, for a verb to declare."""
    return JOBS, job_ids


JOB_NOTE = b"j"
"""First byte of the commit record's note of an accepted job, before its id; stored ones never change."""


def read_job_note(note: bytes) -> bytes | None:
    """Return the id of the accepted job that a note says; None: it is about something else."""
    return note[1:] if note[:1] == JOB_NOTE and len(note) == 17 else None


def insert_jobs(tx: Tx, jobs: Sequence[NewJob], starts: Sequence[Start]) -> None:
    """Write accepted jobs; *starts* are the leases on those that a host gets in the same command."""
    started = {start.job_id: start for start in starts}
    rows, events = [], []
    for job in jobs:
        start = started.get(job.id)
        rows.append(
            (
                job.id, job.owner_id, job.dialect, job.kind, job.model, RUNNING if start else QUEUED,
                job.body, job.terms.input_max, job.terms.output_max, job.terms.rate_in, job.terms.rate_out, job.terms.hold_uusd,
                int(job.detached), job.deadline_ms, job.created_ms,
                start.at_ms if start else None, start.host_id if start else None,
                start.attempt_id if start else None, 0, 0, 0, job.node_id, job.home_id,
                job.caller, job.steps, job.needs, job.whole, job.terms.grows_by or None,
            )
        )  # fmt: skip
        events.append((job.id, 0, QUEUED, job.created_ms))
        if start:
            events.append((job.id, 1, RUNNING, start.at_ms))
    tx.insert(JOBS, rows, columns=ACCEPTED_COLUMNS)
    # Whoever stays connected is told of no job before the answer, which its receipt confirms.
    tx.notes.extend([JOB_NOTE + job.id for job in jobs if job.detached])
    tx.insert(JOB_EVENTS, events, columns=ENTERED_COLUMNS)
    if starts:
        _insert_attempts(tx, starts)


def start_rows(tx: Tx, starts: Sequence[Start]) -> None:
    """Write leases on jobs that waited."""
    tx.update(JOBS, START_COLUMNS, [(s.job_id, RUNNING, s.host_id, s.attempt_id, s.at_ms, s.node_id) for s in starts])
    tx.insert(JOB_EVENTS, [(s.job_id, s.event_seq, RUNNING, s.at_ms) for s in starts], columns=ENTERED_COLUMNS)
    _insert_attempts(tx, starts)


def requote_rows(tx: Tx, quotes: Sequence[tuple[bytes, Terms, bytes | None]]) -> None:
    """Write new terms and stages (as `encode_stages` gives them) of jobs; the hold's row is the ledger's."""
    columns = ("max_tokens", "price_in_uusd_per_mtok", "price_out_uusd_per_mtok", "hold_uusd", "steps")
    tx.update(
        JOBS,
        columns,
        [
            (job_id, terms.output_max, terms.rate_in, terms.rate_out, terms.hold_uusd, steps)
            for job_id, terms, steps in quotes
        ],
    )


def requeue_rows(tx: Tx, lost: Sequence[FinishRow]) -> None:
    """Write jobs that another host will continue: queued again, the attempt closed as given, its frames journaled."""
    columns = ("state", "host_id", "attempt_id", "restarts", "model")
    tx.update(
        JOBS, columns, [(item.job_id, JobState.QUEUED, None, None, item.restarts or None, item.model) for item in lost]
    )
    tx.insert(
        JOB_EVENTS, [(i.job_id, i.event_seq, JobState.QUEUED, i.at_ms, _without_nul(i.error_message)) for i in lost]
    )
    _end_attempts(tx, lost)
    pieces = [(item.job_id, item.first_frame, item.frames) for item in lost if item.frames]
    if pieces:
        tx.insert(JOURNAL, pieces)


def finish_rows(tx: Tx, finishes: Sequence[FinishRow]) -> None:
    """Write final states, attempts' ends and whole answers; delete the jobs' rows in the journal."""
    tx.update(
        JOBS,
        FINISH_COLUMNS,
        [
            (
                f.job_id,
                f.state.value,
                f.at_ms,
                f.input_count,
                f.output_count,
                f.cost_uusd,
                _without_nul(f.finish_reason),
                # A completed job may have a lost attempt: its host died before it could report the end.
                None if f.state == JobState.COMPLETED else f.fault or None,
                _without_nul(f.error_code),
                _without_nul(f.error_message),
            )
            for f in finishes
        ],
    )
    tx.insert(
        JOB_EVENTS, [(f.job_id, f.event_seq, f.state.value, f.at_ms, _without_nul(f.error_code)) for f in finishes]
    )
    _end_attempts(tx, finishes)
    answers = [(f.job_id, f.frames, f.usage) for f in finishes if f.frames]
    if answers:
        tx.insert(ANSWERS, answers)
    continued = [f for f in finishes if f.earlier]
    if continued:
        tx.update(ATTEMPTS, ("paid_uusd",), [earned for f in continued for earned in f.earlier])
        marks = ",".join("?" * len(continued))
        tx.execute(f"DELETE FROM journal WHERE job_id IN ({marks})", [f.job_id for f in continued])


def _without_nul(text: str) -> str | None:
    """Return a host's text as stored: NUL, which PostgreSQL refuses, becomes the replacement character."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") or None


def claim_rows(tx: Tx, *, node_id: bytes, of: Sequence[bytes | None], limit: int) -> list[JobRow]:
    """Change the owner of unfinished jobs; see `Jobs.claim_orphans`."""
    marks = ",".join("?" * len(of))
    whose = f"(node_id IN ({marks}){' OR node_id IS NULL' if None in of else ''})"
    skip = f"{_lock(tx)} SKIP LOCKED" if tx.dialect == "postgresql" else ""
    sql = (
        f"SELECT {','.join(JOBS.names)} FROM jobs WHERE state IN ('queued', 'running') AND {whose} "
        f"ORDER BY id LIMIT {limit:d}{skip}"
    )
    return _claimed(tx, tx.fetch(sql, list(of)), node_id)


def claim_row(tx: Tx, *, job_id: bytes, node_id: bytes, from_id: bytes) -> JobRow | None:
    """Change the owner of one waiting job; see `Jobs.claim`."""
    where = f"id = ? AND state = 'queued' AND node_id = ?{_lock(tx)}"
    rows = tx.fetch(f"SELECT {','.join(JOBS.names)} FROM jobs WHERE {where}", [job_id, from_id])
    return _claimed(tx, rows, node_id)[0] if rows else None


def claim_waiting_rows(tx: Tx, *, node_id: bytes, models: Sequence[str], limit: int) -> list[JobRow]:
    """Change the owner of waiting jobs; see `Jobs.claim_waiting`. Jobs that others are claiming are skipped."""
    marks = ",".join("?" * len(models))
    where = f"state = 'queued' AND node_id <> ? AND model IN ({marks}) ORDER BY id LIMIT {limit:d}{_lock(tx)}"
    skip = " SKIP LOCKED" if tx.dialect == "postgresql" else ""
    rows = tx.fetch(f"SELECT {','.join(JOBS.names)} FROM jobs WHERE {where}{skip}", [node_id, *models])
    return _claimed(tx, rows, node_id)


def claim_leases(tx: Tx, *, leases: Sequence[bytes], node_id: bytes, host_id: bytes) -> list[JobRow]:
    """Change the owner of running jobs; see `Jobs.claim_leases`."""
    job_ids = [row[0] for row in tx.select(ATTEMPTS, ("job_id",), leases)]
    if not job_ids:
        return []
    marks, held = ",".join("?" * len(job_ids)), ",".join("?" * len(leases))
    where = (
        f"id IN ({marks}) AND state = 'running' AND host_id = ? AND attempt_id IN ({held}) AND node_id <> ? "
        f"ORDER BY id{_lock(tx)}"
    )
    rows = tx.fetch(f"SELECT {','.join(JOBS.names)} FROM jobs WHERE {where}", [*job_ids, host_id, *leases, node_id])
    return _claimed(tx, rows, node_id)


def _lock(tx: Tx) -> str:
    return " FOR UPDATE" if tx.dialect == "postgresql" else ""


def _claimed(tx: Tx, rows: Sequence[tuple[object, ...]], node_id: bytes) -> list[JobRow]:
    found = [job_row(row) for row in rows]
    tx.update(JOBS, ("node_id",), [(row.id, node_id) for row in found])
    return found


def job_row(columns: tuple[object, ...], names: tuple[str, ...] = JOBS.names) -> JobRow:
    """Return columns of ``jobs`` as a row; a body that was not read is empty."""
    values = dict(zip(names, columns, strict=True))
    values["body"] = values.get("body") or b""
    return JobRow(**values)  # type: ignore[arg-type]


def forget_contents(tx: Tx, job_ids: Sequence[bytes]) -> int:
    """Blank prompts and delete answers; for chains of containers also caller and error. Return how many had any."""
    marks = ",".join("?" * len(job_ids))
    touched = {bytes(row[0]) for row in tx.fetch(f"SELECT job_id FROM answers WHERE job_id IN ({marks})", job_ids)}
    sql = f"SELECT id FROM jobs WHERE id IN ({marks}) AND length(body) > 0"
    prompts = [bytes(row[0]) for row in tx.fetch(sql, job_ids)]
    tx.execute(f"DELETE FROM answers WHERE job_id IN ({marks})", job_ids)
    tx.update(JOBS, ("body",), [(job_id, b"") for job_id in prompts])
    sql = f"SELECT id FROM jobs WHERE id IN ({marks}) AND caller <> ''"
    chains = [bytes(row[0]) for row in tx.fetch(sql, job_ids)]
    if chains:
        # A failed container's message is part of its answer, and an address is personal. The caller becomes empty, not
        # NULL, because a non-NULL caller marks a chain.
        tx.update(JOBS, ("caller", "error_message"), [(job_id, "", None) for job_id in chains])
        marks = ",".join("?" * len(chains))
        tx.execute(f"UPDATE job_events SET detail = NULL WHERE detail IS NOT NULL AND job_id IN ({marks})", chains)
    return len(touched.union(prompts))


def insert_loser(tx: Tx, *, job_id: bytes, lease: Lease, at_ms: int) -> None:
    """Write the closed attempt of a second host; see `Jobs.record_losing_attempt`."""
    row = (
        lease.id, job_id, lease.host_id, AttemptState.FAILED, lease.first_frame, lease.first_frame, 0, 0, lease.started_ms,
        at_ms, None, None, None, None, lease.rate_in, lease.rate_out,
    )  # fmt: skip
    tx.insert(ATTEMPTS, [row])


def _insert_attempts(tx: Tx, starts: Sequence[Start]) -> None:
    rows = [
        (
            s.attempt_id, s.job_id, s.host_id, LEASED, s.first_frame, s.first_frame, 0, 0, s.at_ms, s.rate_in, s.rate_out,
        )
        for s in starts
    ]  # fmt: skip
    tx.insert(ATTEMPTS, rows, columns=LEASED_COLUMNS)


def _end_attempts(tx: Tx, ends: Sequence[FinishRow]) -> None:
    rows = [
        (
            f.attempt_id,
            f.attempt_state.value,
            f.end_frame,
            f.count,
            f.paid_uusd,
            f.at_ms,
            f.fault or None,
            f.running_hash or None,
            f.signature or None,
            f.attempt_input_count,
        )
        for f in ends
        if f.attempt_id is not None
    ]
    if rows:
        tx.update(ATTEMPTS, ATTEMPT_END_COLUMNS, rows)
