"""Jobs: units of bought work, their attempts, their frames while they run and their answers afterwards.

Owns: tables ``jobs``, ``attempts``, ``job_events``, ``answers``, ``journal``; the live jobs in memory (`LiveJob`) and
the waiting queue (`Queue`).
Invariant: a job is in exactly one state, moves only along `JobState`'s arrows, and every move is a row in
``job_events``; at most one attempt of a job is open. An unfinished job has one owner, the coordinator that may write
it.
Units: times in milliseconds since 1970, money in micro-dollars, frames counted from 0.
Knows: `kinds` (the kind says how a job may be resumed) and the link's `Frame`, which is what it stores.
"""

from comptoir.jobs.answer import StoredAnswer, decode_frames
from comptoir.jobs.brought_back import ANSWER_LOST, StatedAttempt, StatedJob, write_stated
from comptoir.jobs.change import Change
from comptoir.jobs.errors import (
    AnswerForgotten,
    AnswerLost,
    JobExists,
    JobFinished,
    JobMoved,
    NotYourLease,
    UnknownJob,
)
from comptoir.jobs.growth import BY_CONTEXT, BY_CREDIT
from comptoir.jobs.lease import ClosedSegment, Lease
from comptoir.jobs.live import RESTARTED, LiveJob
from comptoir.jobs.live_jobs import LiveJobs
from comptoir.jobs.queue import Queue, Waiting
from comptoir.jobs.reader import Reader
from comptoir.jobs.service import SMALL_ANSWER_BYTES, Jobs
from comptoir.jobs.store import (
    FinishRow,
    NewJob,
    Start,
    finish_rows,
    insert_jobs,
    job_rows,
    load_states,
    read_job_note,
    requeue_rows,
    requote_rows,
    start_rows,
)
from comptoir.jobs.tables import TABLES
from comptoir.jobs.types import (
    FINAL,
    AttemptRow,
    AttemptState,
    Fault,
    JobRow,
    JobState,
)

__all__ = [
    "ANSWER_LOST",
    "BY_CONTEXT",
    "BY_CREDIT",
    "FINAL",
    "RESTARTED",
    "SMALL_ANSWER_BYTES",
    "TABLES",
    "AnswerForgotten",
    "AnswerLost",
    "AttemptRow",
    "AttemptState",
    "Change",
    "ClosedSegment",
    "Fault",
    "FinishRow",
    "JobExists",
    "JobFinished",
    "JobMoved",
    "JobRow",
    "JobState",
    "Jobs",
    "Lease",
    "LiveJob",
    "LiveJobs",
    "NewJob",
    "NotYourLease",
    "Queue",
    "Reader",
    "Start",
    "StatedAttempt",
    "StatedJob",
    "StoredAnswer",
    "UnknownJob",
    "Waiting",
    "decode_frames",
    "finish_rows",
    "insert_jobs",
    "job_rows",
    "load_states",
    "read_job_note",
    "requeue_rows",
    "requote_rows",
    "start_rows",
    "write_stated",
]
