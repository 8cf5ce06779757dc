"""What the coordinator of commit 6daa2b3 (28 November 2026) says over the bus, and how it reads it. Frozen: it is never edited.

While a trading post is upgraded one coordinator after the other, old and new talk to each other. The messages are that commit's, by
position, the stored job in an offer by name. It imports nothing of ours but the link's frozen messages; a test holds its bytes.
"""

import msgspec

from tests.frozen.worker_6daa2b3 import Frame, ModelOffer, Usage


class JobRow(msgspec.Struct, frozen=True):
    id: bytes
    owner_id: bytes
    dialect: str
    kind: str
    model: str
    state: str
    body: bytes
    prompt_tokens_max: int
    max_tokens: int
    price_in_uusd_per_mtok: int
    price_out_uusd_per_mtok: int
    hold_uusd: int
    detached: int
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
    home_id: bytes | None
    restarts: int | None
    caller: str | None = None
    steps: bytes | None = None


class Figures(msgspec.Struct, array_like=True, frozen=True):
    model: str
    first_frame_ms: float
    inter_frame_ms: float


class HostView(msgspec.Struct, array_like=True, frozen=True):
    id: bytes
    status: str
    free: int
    total: int
    models: list[ModelOffer]
    figures: list[Figures]
    reputation: float


class View(msgspec.Struct, array_like=True, frozen=True, tag="view"):
    full: bool
    hosts: list[HostView]
    chosen: list[tuple[bytes, str]]
    heads: dict[str, bytes]


class Hail(msgspec.Struct, array_like=True, frozen=True, tag="hail"):
    pass


class Offer(msgspec.Struct, array_like=True, frozen=True, tag="offer"):
    job_id: bytes
    events: int
    row: JobRow | None
    tried: list[bytes]
    answers: int = 1


class Took(msgspec.Struct, array_like=True, frozen=True, tag="took"):
    job_id: bytes


class Declined(msgspec.Struct, array_like=True, frozen=True, tag="declined"):
    job_id: bytes


class Ask(msgspec.Struct, array_like=True, frozen=True, tag="ask"):
    model: str
    count: int


class Follow(msgspec.Struct, array_like=True, frozen=True, tag="follow"):
    job_id: bytes
    start: int
    chain: bytes


class Unfollow(msgspec.Struct, array_like=True, frozen=True, tag="unfollow"):
    job_id: bytes


class Batch(msgspec.Struct, array_like=True, frozen=True, tag="batch"):
    job_id: bytes
    seq: int
    items: list[Frame]
    state: str
    host_id: bytes | None
    started_ms: int
    restarts: int = 0


class Ended(msgspec.Struct, array_like=True, frozen=True, tag="ended"):
    job_id: bytes
    state: str
    frames: int
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
    job_id: bytes


class Differs(msgspec.Struct, array_like=True, frozen=True, tag="differs"):
    job_id: bytes


class Owned(msgspec.Struct, array_like=True, frozen=True, tag="owned"):
    job_ids: list[bytes]


class Stop(msgspec.Struct, array_like=True, frozen=True, tag="stop"):
    job_id: bytes
    reason: str


class Outcome(msgspec.Struct, array_like=True, frozen=True, tag="outcome"):
    host_id: bytes
    outcome: str
    tokens: int


class HttpCall(msgspec.Struct, array_like=True, frozen=True, tag="http"):
    call_id: int
    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    peer: str


class HttpAnswer(msgspec.Struct, array_like=True, frozen=True, tag="answer"):
    call_id: int
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Spent(msgspec.Struct, array_like=True, frozen=True, tag="spent"):
    shares: bytes


class Revoked(msgspec.Struct, array_like=True, frozen=True, tag="revoked"):
    keys: list[bytes]


class Totals(msgspec.Struct, array_like=True, frozen=True, tag="totals"):
    ended: dict[str, int]
    users: int
    chains: int = 0


class Said(msgspec.Struct, array_like=True, frozen=True, tag="said"):
    host_id: bytes
    of: dict[str, bytes]


class Inquired(msgspec.Struct, array_like=True, frozen=True, tag="inquired"):
    inquiry: int
    host_id: bytes
    container: str
    model_id: str


class Supports(msgspec.Struct, array_like=True, frozen=True, tag="supports"):
    inquiry: int
    body: bytes


class Piece(msgspec.Struct, array_like=True, frozen=True, tag="piece"):
    data: bytes
    first: bool
    last: bool


Message = (
    Piece | View | Hail | Offer | Took | Declined | Ask | Follow | Unfollow | Batch | Ended | Gone | Differs | Owned | Stop
    | Outcome | Totals | HttpCall | HttpAnswer | Spent | Revoked | Said | Inquired | Supports
)  # fmt: skip


class Step(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One container of a chain, as `jobs.steps` holds it: JSON, a list of these."""

    model: str
    price_out: int
    proof: bool = False


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(list[Message]).decode
