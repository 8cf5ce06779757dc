"""What coordinators send each other over the bus: msgpack arrays, tag first, new fields only at the end.

News, not truth: any of these may be lost, and then a coordinator asks again or reads the database.
"""

from collections.abc import Sequence

import msgspec

from comptoir.jobs import JobRow
from comptoir.link import Frame, ModelOffer, Usage


class Figures(msgspec.Struct, array_like=True, frozen=True):
    """What a coordinator measured of a host with one model, milliseconds."""

    model: str
    first_frame_ms: float
    inter_frame_ms: float


class AnnouncedHost(msgspec.Struct, array_like=True, frozen=True):
    """A host as the coordinator sees it that it is linked to."""

    id: bytes
    status: str
    free: int
    total: int
    models: list[ModelOffer]
    figures: list[Figures]
    reputation: float


class Announcement(msgspec.Struct, array_like=True, frozen=True, tag="view"):
    """The sender's hosts that changed; *full*: all it has, any other is no longer there."""

    full: bool
    hosts: list[AnnouncedHost]
    chosen: list[tuple[bytes, str]]
    """Host and model of each job given since the last view, for strategies that take turns."""
    heads: dict[str, bytes]
    """The job that waits longest at the sender, by model."""


class Hail(msgspec.Struct, array_like=True, frozen=True, tag="hail"):
    """Tell me everything: your hosts, and what I follow of yours."""


class JobOffer(msgspec.Struct, array_like=True, frozen=True, tag="offer"):
    """A job that waits at the sender, for a host of the receiver: whoever leases it first in the database has it."""

    job_id: bytes
    events: int
    """Number of its next row in job_events."""
    row: JobRow | None
    """The job as stored; None when it is too large to send or has frames: then the receiver reads it."""
    tried: list[bytes]
    """Hosts that failed it."""
    answers: int = 1


class Took(msgspec.Struct, array_like=True, frozen=True, tag="took"):
    """The offered job is leased here now; its frames follow by themselves."""

    job_id: bytes


class Declined(msgspec.Struct, array_like=True, frozen=True, tag="declined"):
    """No host here can take the offered job now."""

    job_id: bytes


class AskForJobs(msgspec.Struct, array_like=True, frozen=True, tag="ask"):
    """There are free slots for *model* here: offer the jobs that wait longest, at most *count*."""

    model: str
    count: int


class Follow(msgspec.Struct, array_like=True, frozen=True, tag="follow"):
    """Send the frames of a job from *start* on, and its end."""

    job_id: bytes
    start: int
    chain: bytes
    """Running hash over the frames before *start*, which have to be the receiver's too."""


class Unfollow(msgspec.Struct, array_like=True, frozen=True, tag="unfollow"):
    """Nobody reads the job here any more."""

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
    """How often the answer had begun anew."""


class Ended(msgspec.Struct, array_like=True, frozen=True, tag="ended"):
    """A followed job is over and settled; all its frames were sent before."""

    job_id: bytes
    state: str
    frames: int
    """How many there are in all."""
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
    """The job that was asked for is not the sender's (any more): the database says whose."""

    job_id: bytes


class Differs(msgspec.Struct, array_like=True, frozen=True, tag="differs"):
    """The frames before `Follow.start` are not the answer's: it was restarted. Nothing can be added to them."""

    job_id: bytes


class Owned(msgspec.Struct, array_like=True, frozen=True, tag="owned"):
    """The sender has become the owner of these jobs."""

    job_ids: list[bytes]


class Stop(msgspec.Struct, array_like=True, frozen=True, tag="stop"):
    """The buyer of the job is gone, or wants no more: cancel it."""

    job_id: bytes
    reason: str


class Outcome(msgspec.Struct, array_like=True, frozen=True, tag="outcome"):
    """How an attempt ended for a host that is the receiver's by now."""

    host_id: bytes
    outcome: str
    tokens: int


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
    """What was taken from rate limits since the last time, and how many unfinished jobs buyers have at the sender."""

    shares: bytes


class Revoked(msgspec.Struct, array_like=True, frozen=True, tag="revoked"):
    """Keys that are no longer good, by what the identity room calls them."""

    keys: list[bytes]


class Totals(msgspec.Struct, array_like=True, frozen=True, tag="totals"):
    """What the sender has counted since its start; whoever heard an earlier count adds the difference."""

    ended: dict[str, int]
    """Jobs by final state."""
    users: int
    staged_jobs: int = 0
    """Unfinished chains of containers, as they are now."""
    followed: int = 0
    """Owners whose numbered events somebody follows at the sender; 0 of a version that knows no `News`."""


class ContainerResources(msgspec.Struct, array_like=True, frozen=True, tag="said"):
    """What the containers of a host here say of themselves; replaces the whole of what was told of it before."""

    host_id: bytes
    of: dict[str, bytes]
    """JSON by container."""


class Inquired(msgspec.Struct, array_like=True, frozen=True, tag="inquired"):
    """Ask a container of a host of the receiver whether it supports a model."""

    inquiry: int
    """Number of the question at the sender; the `Supports` names it."""
    host_id: bytes
    container: str
    model_id: str


class Supports(msgspec.Struct, array_like=True, frozen=True, tag="supports"):
    """The answer to an `Inquired`."""

    inquiry: int
    body: bytes
    """JSON; empty: the container gave no answer, or the host is not here."""


class News(msgspec.Struct, array_like=True, frozen=True, tag="news"):
    """Events were written at the sender: the highest number per owner. Sent only to coordinators with followers."""

    numbers: list[tuple[bytes, int]]


class MessagePiece(msgspec.Struct, array_like=True, frozen=True, tag="piece"):
    """Part of a message that is too large for the bus; put together behind the *last* one."""

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
    """Encode what goes to one coordinator in one turn of the event loop."""
    return _encoder.encode(messages)


def decode(data: bytes) -> list[Message]:
    """Decode what a coordinator sent.

    Raises:
        msgspec.DecodeError: not msgpack, an unknown tag (a newer version speaks), or a field of the wrong type.
    """
    return _decoder.decode(data)
