"""Tables of the jobs room; private to it."""

from comptoir.kit.db import Table

JOBS = Table(
    "jobs",
    {
        "id": "id",
        "owner_id": "id",
        "dialect": "text",
        "kind": "text",
        "model": "text",
        "state": "text",
        "body": "bytes",
        "prompt_tokens_max": "int",
        "max_tokens": "int",
        "price_in_uusd_per_mtok": "int",
        "price_out_uusd_per_mtok": "int",
        "hold_uusd": "int",
        "detached": "int",
        "deadline_ms": "int",
        "created_ms": "int",
        "started_ms": "int?",
        "finished_ms": "int?",
        "host_id": "id?",
        "attempt_id": "id?",
        "prompt_tokens": "int",
        "completion_tokens": "int",
        "cost_uusd": "int",
        "finish_reason": "text?",
        "fault": "text?",
        "error_code": "text?",
        "error_message": "text?",
        "node_id": "id?",
        "home_id": "id?",
        "restarts": "int?",
        "caller": "text?",
        "steps": "bytes?",
        "needs": "bytes?",
        "whole": "int?",
        "grows_by": "int?",
    },
    key=("id",),
    indexes=(("owner_id", "id"),),
    partial=(
        (("id",), "state IN ('queued', 'running')"),
        (("owner_id", "id"), "caller IS NOT NULL"),
        (("owner_id", "caller", "id"), "caller IS NOT NULL"),
    ),
    wide=True,
)
ATTEMPTS = Table(
    "attempts",
    {
        "id": "id",
        "job_id": "id",
        "host_id": "id",
        "state": "text",
        "first_frame": "int",
        "end_frame": "int",
        "tokens": "int",
        "paid_uusd": "int",
        "started_ms": "int",
        "ended_ms": "int?",
        "fault": "text?",
        "chain": "bytes?",
        "signature": "bytes?",
        "prompt_tokens": "int?",
        "price_in_uusd_per_mtok": "int?",
        "price_out_uusd_per_mtok": "int?",
    },
    key=("id",),
    indexes=(("job_id",),),
)
JOB_EVENTS = Table(
    "job_events",
    {"job_id": "id", "seq": "int", "state": "text", "at_ms": "int", "detail": "text?"},
    key=("job_id", "seq"),
)
ANSWERS = Table("answers", {"job_id": "id", "frames": "bytes", "usage": "bytes"}, key=("job_id",), wide=True)
JOURNAL = Table(
    "journal", {"job_id": "id", "first_frame": "int", "frames": "bytes"}, key=("job_id", "first_frame"), wide=True
)
TABLES = (JOBS, ATTEMPTS, JOB_EVENTS, ANSWERS, JOURNAL)
