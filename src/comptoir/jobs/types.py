"""States and frozen values of jobs."""

from enum import StrEnum

import msgspec


class JobState(StrEnum):
    """queued -> running -> completed | failed | cancelled | expired; running -> queued when a host is lost."""

    QUEUED = "queued"
    """Accepted and paid for by a hold; no host has it."""
    RUNNING = "running"
    """A host holds a lease on it."""
    COMPLETED = "completed"
    """Answered in full and settled."""
    FAILED = "failed"
    """Ended with an error; delivered work is settled, the rest released."""
    CANCELLED = "cancelled"
    """Ended by its buyer; delivered work is settled."""
    EXPIRED = "expired"
    """Nobody answered before its deadline; the hold is released."""


FINAL = frozenset((JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED))


class AttemptState(StrEnum):
    """leased -> streaming -> done | failed | lost."""

    LEASED = "leased"
    """The host has been given the job."""
    STREAMING = "streaming"
    """Its first frame arrived."""
    DONE = "done"
    """It delivered its part and was settled."""
    FAILED = "failed"
    """It said that it can't, or the job was cancelled under it."""
    LOST = "lost"
    """It fell silent; the lease was taken away."""


class Fault(StrEnum):
    """Whose fault an ending is. Only ``host`` lowers a reputation."""

    NONE = ""
    """Nobody's: it went well."""
    BUYER = "buyer"
    """Bad input, cancelled, hung up."""
    HOST = "host"
    """Error, silence or a broken link at the host."""
    CAPACITY = "capacity"
    """Busy: nobody free in time."""
    COORDINATOR = "coordinator"
    """Ours: restarted, database away."""


class JobRow(msgspec.Struct, frozen=True):
    """A job as stored; field order is the column order of ``jobs``."""

    id: bytes
    owner_id: bytes
    dialect: str
    """Name of the dialect it was bought through."""
    kind: str
    """``chat``, ``completion`` or ``embedding``."""
    model: str
    state: str
    body: bytes
    """OpenAI-style request body, JSON, as it goes over the link."""
    prompt_tokens_max: int
    """Bound on prompt tokens that the hold covers."""
    max_tokens: int
    price_in_uusd_per_mtok: int
    """Price cap for prompt tokens; what is charged is the host's price, at most this."""
    price_out_uusd_per_mtok: int
    hold_uusd: int
    detached: int
    """1: nobody needs to stay connected for it (Infrintia); 0: its buyer waits on the line (OpenAI)."""
    deadline_ms: int
    created_ms: int
    started_ms: int | None
    finished_ms: int | None
    host_id: bytes | None
    attempt_id: bytes | None
    prompt_tokens: int
    completion_tokens: int
    cost_uusd: int
    finish_reason: str | None
    fault: str | None
    error_code: str | None
    error_message: str | None
    node_id: bytes | None
    """Coordinator that owns it while it is unfinished."""
    home_id: bytes | None
    """Coordinator that the client of an attached job is connected to."""
    restarts: int | None
    """How often the answer had to begin anew after some of it may have been seen; None: never."""


class AttemptRow(msgspec.Struct, frozen=True):
    """One host's try at a job, as stored."""

    id: bytes
    host_id: bytes
    state: str
    first_frame: int
    end_frame: int
    """Exclusive."""
    tokens: int
    paid_uusd: int
    started_ms: int
    ended_ms: int | None
    fault: str | None
    chain: bytes | None
    """Running hash after its last frame; None: it delivered nothing, or did not stand by what it delivered."""
    prompt_tokens: int | None
    """As it counted them; None: it did not say."""
    price_in: int | None
    """Micro-dollars per million tokens; None: written by a version that did not keep it."""
    price_out: int | None
