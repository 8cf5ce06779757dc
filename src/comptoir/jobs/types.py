"""States and frozen values of jobs."""

from enum import StrEnum

import msgspec

from comptoir.kinds import Stage, Terms, decode_stages


class JobState(StrEnum):
    """queued -> running -> completed | failed | cancelled | expired; running -> queued when a host is lost.

    In memory, where a job has some stations more, each arrow is one method, and no slot of a job is written elsewhere. Those with a
    star are made before they are written, and return a `comptoir.jobs.Change` that undoes them if the database refuses:

        queued -> queued under lease       `LiveJobs.lease_to` *       a host gets it; also a second one that delivered first
        queued under lease -> running      `LiveJob.begin_running`     that is written (or about to be: an early start)
        queued | running -> queued         `LiveJobs.requeue` *        its host lost it, or did its step of a chain
        queued -> queued, standing still   `LiveJobs.stand_still`      some was delivered, and no host is free to go on
        queued | running -> closing        `LiveJob.begin_closing` *, `LiveJobs.close_lease` *
        closing -> one of the four ends    `LiveJob.end`               it is written
        queued | running -> refused        `LiveJobs.refuse`           it was not accepted after all
        ours -> mirror                     `LiveJobs.become_mirror`    another coordinator owns it
        mirror -> ours                     `LiveJobs.adopt`, then `LiveJob.resume_events` and `LiveJobs.reattach`, or `lease_to`
        mirror -> one of the four ends     `LiveJob.end`, `LiveJob.end_as_stored`; `LiveJob.break_off`: it is followed no more
    """

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
    """leased -> done | failed | lost."""

    LEASED = "leased"
    """The host has been given the job."""
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
    """Name of its kind (`comptoir.kinds`)."""
    model: str
    """Of several stages: that of the stage it is at."""
    state: str
    body: bytes
    """Request body as it goes over the link; what is in it, its kind says."""
    prompt_tokens_max: int
    """`Terms.input_max`, and so on: columns keep the names they had when tokens were all that was sold."""
    max_tokens: int
    price_in_uusd_per_mtok: int
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
    caller: str | None = None
    """Address that asked, where that decides who may run or see the job; None elsewhere."""
    steps: bytes | None = None
    """The stages (`comptoir.kinds.encode_stages`); None: one model."""
    needs: bytes | None = None
    """What its order asks of a host, JSON, as `comptoir.routing.Needs` reads it; None: nothing."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What is done one after the other; empty: one model."""
        return decode_stages(self.steps)

    @property
    def terms(self) -> Terms:
        """What its buyer agreed to."""
        return Terms(
            self.prompt_tokens_max,
            self.max_tokens,
            self.price_in_uusd_per_mtok,
            self.price_out_uusd_per_mtok,
            self.hold_uusd,
        )


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
    """Micro-dollars per million units; None: written by a version that did not keep it."""
    price_out: int | None
    signature: bytes | None = None
    """The host's, over what it delivered; None: it gave none."""
