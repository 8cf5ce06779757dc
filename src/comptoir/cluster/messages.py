"""What coordinators send each other over the bus: msgpack arrays, tag first, new fields only at the end.

The database is authoritative: any message may be lost, and then a coordinator asks again or reads the database.
"""

from collections.abc import Sequence

import msgspec

from comptoir.jobs import JobRow
from comptoir.link import Frame, ModelOffer, Usage


class Figures(msgspec.Struct, array_like=True, frozen=True):
    """What a coordinator measured for a host with one model, in milliseconds."""

    model: str
    first_frame_ms: float
    inter_frame_ms: float


class AnnouncedHost(msgspec.Struct, array_like=True, frozen=True):
    """A host, as seen by the coordinator that it is connected to."""

    id: bytes
    status: str
    free: int
    total: int
    models: list[ModelOffer]
    figures: list[Figures]
    reputation: float


class Announcement(msgspec.Struct, array_like=True, frozen=True, tag="view"):
    """The sender's hosts that changed; *full*: these are all it has, any other is no longer there."""

    full: bool
    hosts: list[AnnouncedHost]
    chosen: list[tuple[bytes, str]]
    """Host and model of each assignment since the last announcement, for strategies that take turns."""
    heads: dict[str, bytes]
    """The sender's longest-waiting job, by model."""


class Hail(msgspec.Struct, array_like=True, frozen=True, tag="hail"):
    """Request for everything: the receiver's hosts, and those of its jobs that the sender follows."""


class JobOffer(msgspec.Struct, array_like=True, frozen=True, tag="offer"):
    """A job that waits at the sender, for a host of the receiver: the first to lease it in the database gets it."""

    job_id: bytes
    events: int
    """Number of the job's next row in job_events."""
    row: JobRow | None
    """The job as stored; None when it is too large to send or has frames: then the receiver reads it."""
    tried: list[bytes]
    """Hosts that failed on it."""
    answers: int = 1
    own_money: bool = False
    """Whether its buyer's own money covers its hold."""
    ceilings: list[int] = []
    """The most, in micro-dollars, that each of its parts may be held at anew; empty: what is held is final."""
    dearest: list[int] = []
    """Prices (in, out) with which these grow as its bound does (`jobs.growth.Growth.dearest`); empty: not at all."""
    tells: bool = False
    """Whether its buyer is told of each lease on it (`events.JobAssigned`)."""


class Took(msgspec.Struct, array_like=True, frozen=True, tag="took"):
    """The offered job is leased by the sender now; its frames follow without a request."""

    job_id: bytes


class Declined(msgspec.Struct, array_like=True, frozen=True, tag="declined"):
    """No host of the sender can take the offered job now."""

    job_id: bytes
    short: bool = False
    """Its hosts cost more than is held, and the buyer's free credit does not cover that."""


class AskForJobs(msgspec.Struct, array_like=True, frozen=True, tag="ask"):
    """The sender has free slots for *model*: offer it the longest-waiting jobs, at most *count*."""

    model: str
    count: int


class Follow(msgspec.Struct, array_like=True, frozen=True, tag="follow"):
    """Send the frames of a job from *start* on, and its end."""

    job_id: bytes
    start: int
    chain: bytes
    """Running hash over the frames before *start*, which has to match the receiver's."""


class Unfollow(msgspec.Struct, array_like=True, frozen=True, tag="unfollow"):
    """The sender has no reader of the job any more."""

    job_id: bytes


class Batch(msgspec.Struct, array_like=True, frozen=True, tag="batch"):
    """Frames *seq*, *seq* + 1, … of a followed job."""

    job_id: bytes
    seq: int
    items: list[Frame]
    state: str
    host_id: bytes | None
    started_ms: int
    restarts: int = 0
    """How often the answer had been restarted."""


class Ended(msgspec.Struct, array_like=True, frozen=True, tag="ended"):
    """A followed job is over and settled; all its frames were sent before."""

    job_id: bytes
    state: str
    frames: int
    """Number of frames in all."""
    cost_uusd: int
    usage: Usage
    finish_reason: str
    fault: str
    error_code: str
    error_message: str
    error_status: int
    error_body: bytes
    retry_after_s: float
    host_id: bytes | None
    started_ms: int


class Gone(msgspec.Struct, array_like=True, frozen=True, tag="gone"):
    """The requested job is not, or no longer, the sender's: the database knows its owner."""

    job_id: bytes


class Differs(msgspec.Struct, array_like=True, frozen=True, tag="differs"):
    """The frames before `Follow.start` are not the answer's: it was restarted. Nothing can be added to them."""

    job_id: bytes


class Owned(msgspec.Struct, array_like=True, frozen=True, tag="owned"):
    """The sender has become the owner of these jobs."""

    job_ids: list[bytes]


class Stop(msgspec.Struct, array_like=True, frozen=True, tag="stop"):
    """The job's buyer hung up or cancelled: cancel it."""

    job_id: bytes
    reason: str


class Outcome(msgspec.Struct, array_like=True, frozen=True, tag="outcome"):
    """How an attempt ended for a host that is connected to the receiver by now."""

    host_id: bytes
    outcome: str
    tokens: int
    buyer: bytes = b""
    """Owner of the job; empty: from a version that did not say."""
    paid_uusd: int = 0


class HttpCall(msgspec.Struct, array_like=True, frozen=True, tag="http"):
    """A request that only the receiver can answer, credentials included."""

    call_id: int
    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    peer: str


class HttpAnswer(msgspec.Struct, array_like=True, frozen=True, tag="answer"):
    """The answer to an `HttpCall`."""

    call_id: int
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Spent(msgspec.Struct, array_like=True, frozen=True, tag="spent"):
    """Usage of rate limits since the last message, and how many unfinished jobs buyers have at the sender."""

    shares: bytes


class Revoked(msgspec.Struct, array_like=True, frozen=True, tag="revoked"):
    """Digests of keys that were revoked, and how far the record of operators' acts goes."""

    keys: list[bytes]
    acts: int = 0
    """Number of an act that was recorded: read the record, and put it in force."""


class Totals(msgspec.Struct, array_like=True, frozen=True, tag="totals"):
    """The sender's counters since its start; the receiver adds the difference to the last message."""

    ended: dict[str, int]
    """Jobs by final state."""
    users: int
    staged_jobs: int = 0
    """Current number of unfinished chains of containers."""
    followed: int = 0
    """Owners whose numbered events are followed at the sender; 0 from a version without `News`."""


class ContainerResources(msgspec.Struct, array_like=True, frozen=True, tag="said"):
    """What the containers of a host of the sender report about themselves; replaces the host's last report."""

    host_id: bytes
    of: dict[str, bytes]
    """JSON by container."""


class Inquired(msgspec.Struct, array_like=True, frozen=True, tag="inquired"):
    """Ask a container of a host of the receiver whether it supports a model."""

    inquiry: int
    """Number of the question at the sender; repeated in `Supports`."""
    host_id: bytes
    container: str
    model_id: str


class Supports(msgspec.Struct, array_like=True, frozen=True, tag="supports"):
    """The answer to an `Inquired`."""

    inquiry: int
    body: bytes
    """JSON; empty: the container gave no answer, or the host is not connected to the sender."""


class News(msgspec.Struct, array_like=True, frozen=True, tag="news"):
    """Events were written at the sender: the highest number per owner. Sent only to coordinators with followers."""

    numbers: list[tuple[bytes, int]]


class MessagePiece(msgspec.Struct, array_like=True, frozen=True, tag="piece"):
    """Part of a message that is too large for the bus; complete with the *last* one."""

    data: bytes
    first: bool
    last: bool


Message = (
    MessagePiece | Announcement | Hail | JobOffer | Took | Declined | AskForJobs | Follow | Unfollow | Batch | Ended | Gone
    | Differs | Owned | Stop | Outcome | Totals | HttpCall | HttpAnswer | Spent | Revoked | ContainerResources | Inquired | Supports
    | News
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Message])


def encode(messages: Sequence[Message]) -> bytes:
    """Encode all messages to one coordinator in one tick of the event loop."""
    return _encoder.encode(messages)


def decode(data: bytes) -> list[Message]:
    """Decode what a coordinator sent.

    Raises:
        msgspec.DecodeError: not msgpack, an unknown tag (from a newer version), or a field of the wrong type.
    """
    return _decoder.decode(data)
