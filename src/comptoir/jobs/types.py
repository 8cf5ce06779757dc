"""States and frozen values of jobs."""

from enum import StrEnum

import msgspec

from comptoir.kinds import Stage, Terms, decode_stages


class JobState(StrEnum):
    """queued -> running -> completed | failed | cancelled | expired; running -> queued when a host is lost.

    In memory a job has a few more states. Each arrow is one method, and no slot of a job is written elsewhere. Those
    with a star are made before they are written, and return a `comptoir.jobs.Change` that undoes them if the database
    refuses:

        queued -> queued under lease      `LiveJobs.lease_to` *      a host gets it; also a second one that delivered
        first queued under lease -> running     `LiveJob.begin_running`    the lease is written (or about to be: early
        start) queued | running -> queued        `LiveJobs.requeue` *       its lease was revoked, or its stage is done
        queued -> queued, interrupted     `LiveJobs.stand_still`     part was delivered, and no host is free to continue
        queued | running -> closing       `LiveJob.begin_closing` *, `LiveJobs.close_lease` * closing -> one of the four
        ends   `LiveJob.end`              the end is written queued | running -> refused       `LiveJobs.refuse`
        the submit was refused after all ours -> mirror                    `LiveJobs.become_mirror`   another
        coordinator owns it mirror -> ours                    `LiveJobs.adopt`, then `LiveJob.resume_events` and
        `LiveJobs.reattach`, or
                                          `lease_to`
        mirror -> one of the four ends    `LiveJob.end`, `LiveJob.end_as_stored`; `LiveJob.break_off`: no longer
        followed
    """

    QUEUED = "queued"
    """Accepted and covered by a hold; no host has it."""
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
    """leased -> done | failed | lost."""

    LEASED = "leased"
    """The host has been given the job."""
    DONE = "done"
    """It delivered its part and was settled."""
    FAILED = "failed"
    """It reported a failure, or the job was cancelled while it ran."""
    LOST = "lost"
    """It fell silent; the lease was revoked."""


class Fault(StrEnum):
    """Whose fault an end is. Only ``host`` lowers a reputation; so does ``buyer``, said of a good request."""

    NONE = ""
    """Nobody's: it succeeded."""
    BUYER = "buyer"
    """Bad input, cancelled, hung up."""
    HOST = "host"
    """Error, silence or a dropped link at the host."""
    CAPACITY = "capacity"
    """Busy: no host was free in time."""
    COORDINATOR = "coordinator"
    """Ours: restarted, or the database was unavailable."""


class JobRow(msgspec.Struct, frozen=True):
    """A job as stored; field order is the column order of ``jobs``."""

    id: bytes
    owner_id: bytes
    dialect: str
    """Name of the dialect it was bought through."""
    kind: str
    """Name of its kind (`comptoir.kinds`)."""
    model: str
    """The model; for several stages, that of the current one."""
    state: str
    body: bytes
    """Request body as sent over the link; its format is defined by the kind."""
    prompt_tokens_max: int
    """`Terms.input_max`; this and other columns keep their names from when only tokens were sold."""
    max_tokens: int
    price_in_uusd_per_mtok: int
    price_out_uusd_per_mtok: int
    hold_uusd: int
    detached: int
    """1: no client needs to stay connected (Infrintia); 0: attached to its client's connection (OpenAI)."""
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
    """How often the answer restarted after part of it may have been seen; None: never."""
    caller: str | None = None
    """The caller's IP address, if it decides who may run or see the job; otherwise None."""
    steps: bytes | None = None
    """The stages (`comptoir.kinds.encode_stages`); None: one model."""
    needs: bytes | None = None
    """Its requirements on a host, as JSON of `comptoir.routing.Needs`; None: none."""
    whole: int | None = None
    """1: its buyer gets the answer whole or not at all; None: piece by piece, or written by a version that did not
    distinguish."""
    grows_by: int | None = None
    """`Terms.grows_by`; None: its buyer named a bound, or it was written by a version that gave every job one."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Stages that run one after the other; empty: a single model."""
        return decode_stages(self.steps)

    @property
    def terms(self) -> Terms:
        """The terms that its buyer agreed to."""
        return Terms(
            self.prompt_tokens_max,
            self.max_tokens,
            self.price_in_uusd_per_mtok,
            self.price_out_uusd_per_mtok,
            self.hold_uusd,
            self.grows_by or 0,
        )


class AttemptRow(msgspec.Struct, frozen=True):
    """One host's attempt at a job, as stored."""

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
    """Running hash after its last frame; None: it delivered nothing, or could not vouch for what it delivered."""
    prompt_tokens: int | None
    """Input units as the host counted them; None: it did not report any."""
    price_in: int | None
    """Micro-dollars per million units; None: written by a version that did not store it."""
    price_out: int | None
    signature: bytes | None = None
    """The host's signature over what it delivered; None: it gave none."""
