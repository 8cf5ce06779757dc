"""Bodies of the Infrintia API, as published; fields beyond the reference are marked as ours in the docs."""

from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from comptoir.gateway import InvitationText

Credits = Decimal
"""Exact, a number in JSON; one credit is 10,000 micro-dollars."""
UsdPerToken = Decimal

Name = Annotated[str, Meta(min_length=1, max_length=256)]
HostId = Annotated[str, Meta(min_length=1, max_length=64)]
Piece = Annotated[str, Meta(max_length=1 << 20)]
Pieces = Annotated[list[Piece], Meta(max_length=8192)]
Count = Annotated[int, Meta(ge=0, le=1 << 40)]
Limit = Annotated[int, Meta(ge=1, le=1000)]
Offset = Annotated[int, Meta(ge=0, le=10**12)]

# -- public --------------------------------------------------------------------------------------------------------


class InfrintiaPlatform(msgspec.Struct):
    """Answer of ``GET /``."""

    name: str
    version: str
    docs: str


class InfrintiaHealth(msgspec.Struct):
    """Answer of ``GET /health``."""

    status: str
    active_hosts: int
    queued_jobs: int


class InfrintiaModel(msgspec.Struct):
    """One model on the market."""

    name: str
    available_hosts: int
    min_price_per_token: UsdPerToken
    max_tokens: int


class InfrintiaModels(msgspec.Struct):
    """Answer of ``GET /models``."""

    models: list[InfrintiaModel]


class InfrintiaHostsQuery(msgspec.Struct):
    """Query of ``GET /hosts``."""

    model: Annotated[str, Meta(max_length=256)] | None = None
    status: Literal["active", "draining", "offline"] | None = None
    limit: Limit = 1000
    offset: Offset = 0


class HostCard(msgspec.Struct):
    """One host as the public sees it."""

    host_id: str
    gpu: str
    status: str
    models: list[str]
    price_per_token: UsdPerToken
    backend: str


class InfrintiaHosts(msgspec.Struct):
    """Answer of ``GET /hosts``."""

    hosts: list[HostCard]


class InfrintiaMetrics(msgspec.Struct):
    """Answer of ``GET /metrics``."""

    total_jobs_completed: int
    active_hosts: int
    total_users: int
    avg_job_latency_ms: int


# -- users ---------------------------------------------------------------------------------------------------------


class InfrintiaNewUser(msgspec.Struct):
    """Body of ``POST /users``."""

    username: Annotated[str, Meta(max_length=64)]
    email: Annotated[str, Meta(max_length=254)]
    password: Annotated[str, Meta(max_length=256)]
    invitation: InvitationText | None = None
    """Ours: the operator's invitation, where it takes one to sign up."""

    def __repr__(self) -> str:
        return f"NewUser({self.username!r})"


class UserMade(msgspec.Struct, omit_defaults=True):
    """Answer of ``POST /users``."""

    user_id: str
    username: str
    email: str
    credits: Credits
    created_at: str
    api_key: str
    """Shown once."""
    notice: str = ""
    """Ours: why there is no sign-up credit, if the day's is used up; usually absent."""


class InfrintiaMe(msgspec.Struct):
    """Answer of ``GET /users/me``."""

    user_id: str
    username: str
    credits: Credits
    total_jobs: int
    created_at: str


class KeyMade(msgspec.Struct):
    """Answer of ``POST /users/rotate-key``."""

    api_key: str
    """Shown once."""
    created_at: str


# -- jobs ----------------------------------------------------------------------------------------------------------


class RunModel(msgspec.Struct):
    """Body of ``POST /run/model``."""

    model: Name
    input_text: Annotated[str, Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    """Default: the setting ``max_tokens_default`` (128)."""
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.7


class Accepted(msgspec.Struct):
    """Answer of ``POST /run/model``."""

    job_id: str
    status: str
    model: str
    credits_reserved: Credits
    created_at: str


class InfrintiaJobsQuery(msgspec.Struct):
    """Query of ``GET /jobs``."""

    status: Literal["queued", "running", "completed", "failed", "cancelled"] | None = None
    limit: Limit = 20
    offset: Offset = 0
    before: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    """Only jobs older than this one; not in the published reference. Unlike ``offset`` it stays put when jobs come."""


class JobLine(msgspec.Struct):
    """One job of a list."""

    job_id: str
    model: str
    status: str
    credits_used: Credits
    created_at: str


class InfrintiaJobs(msgspec.Struct):
    """Answer of ``GET /jobs``."""

    jobs: list[JobLine]
    total: int
    next: str | msgspec.UnsetType = msgspec.UNSET
    """What to send as ``before`` for the next page; absent on the last one. Not in the published reference."""


class JobError(msgspec.Struct):
    """Why a job has no (complete) answer."""

    code: str
    message: str


class InfrintiaJob(msgspec.Struct, kw_only=True):
    """Answer of ``GET /jobs/{id}`` and ``POST /jobs/{id}/cancel``."""

    job_id: str
    model: str
    status: str
    jobs_before: int | None
    """Number of jobs before it in the queue; null unless it is queued."""
    credits_reserved: Credits
    credits_used: Credits
    tokens: int
    """Delivered so far."""
    created_at: str
    started_at: str | None
    finished_at: str | None
    host_id: str | None
    finish_reason: str | None
    output_text: str | None
    """The whole answer once the job is over; before that, follow the stream."""
    error: JobError | None
    receipt_id: str | None


# -- hosts ---------------------------------------------------------------------------------------------------------


class Register(msgspec.Struct):
    """Body of ``POST /hosts/register``."""

    gpu: Annotated[str, Meta(min_length=1, max_length=200)]
    models: Annotated[list[Name], Meta(min_length=1, max_length=256)]
    price_per_token: UsdPerToken
    backend: Annotated[str, Meta(max_length=64)] = "huggingface"
    endpoint_url: Annotated[str, Meta(max_length=2048)] | None = None
    slots: Annotated[int, Meta(ge=1, le=4096)] | None = None
    """Our addition: jobs at once; 16 for a host that polls (its polls are the real limit), 1 for a pushed one."""
    context_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] = 4096
    """Ours: prompt and answer together."""
    public_key: Annotated[str, Meta(pattern="^[0-9a-fA-F]{64}$")] | None = None
    """Ours: Ed25519 verify key (hex) of a host that signs its answers."""
    no_promotions: bool = False
    """Ours: take no job that might be paid from promotional credit, which never leaves."""
    invitation: InvitationText | None = None
    """Ours: where hosts are registered by invitation, the one that the operator gave."""


class InfrintiaRegistered(msgspec.Struct):
    """Answer of ``POST /hosts/register``."""

    host_id: str
    status: str
    api_key: str
    """Shown once."""


class Heartbeat(msgspec.Struct):
    """Body of ``POST /hosts/heartbeat``."""

    host_id: HostId
    gpu_utilization: Annotated[float, Meta(ge=0, le=1)] = 0.0
    available_models: Annotated[list[Name], Meta(max_length=256)] | None = None


class Acknowledged(msgspec.Struct, omit_defaults=True):
    """Answer of ``POST /hosts/heartbeat``."""

    status: str
    ignored_models: dict[str, str] = {}
    """Not published: models of this host that nobody is offered, in quarantine, and the operator's reason."""


class NextJob(msgspec.Struct):
    """Body of ``POST /hosts/next-job``."""

    host_id: HostId
    wait_s: Annotated[float, Meta(ge=0, le=300)] | None = None
    """Ours: wait at most this long; never longer than the setting ``next_job_wait_s``."""


class Assigned(msgspec.Struct, omit_defaults=True):
    """Answer of ``POST /hosts/next-job``."""

    job_id: str
    model: str
    input_text: str
    max_tokens: int
    temperature: float
    attempt: str = ""
    """Ours, only for hosts that sign: the attempt's name in the signed segment."""
    input_sha256: str = ""
    """Ours, only for hosts that sign."""


class InfrintiaChunk(msgspec.Struct):
    """Body of ``POST /hosts/jobs/{id}/chunk``."""

    host_id: HostId
    token: Piece | None = None
    tokens: Pieces | None = None
    seq: Count | None = None
    """Number of the first piece, counted from 0 over the whole job; without it the pieces follow those received."""


class ChunkTaken(msgspec.Struct):
    """Answer of ``POST /hosts/jobs/{id}/chunk``."""

    next_seq: int


class Counts(msgspec.Struct):
    """What the host counted."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0


class Complete(msgspec.Struct):
    """Body of ``POST /hosts/complete-job/{id}``."""

    host_id: HostId
    usage: Counts | None = None
    token: Piece | None = None
    tokens: Pieces | None = None
    seq: Count | None = None
    finish_reason: Literal["stop", "length", "content_filter", "tool_calls"] = "stop"
    signature: Annotated[str, Meta(pattern="^[0-9a-fA-F]{128}$")] | None = None


class Completed(msgspec.Struct):
    """Answer of ``POST /hosts/complete-job/{id}``."""

    job_id: str
    status: str
    tokens: int
    credits_earned: Credits


class InfrintiaFail(msgspec.Struct):
    """Body of ``POST /hosts/fail-job/{id}``."""

    host_id: HostId
    error: Annotated[str, Meta(max_length=4096)]
    fault: Literal["host", "capacity", "buyer"] = "host"
    """Ours: ``capacity`` when the host is only busy, ``buyer`` when no host could run this input."""


class Failed(msgspec.Struct):
    """Answer of ``POST /hosts/fail-job/{id}``."""

    job_id: str
    status: str


# -- admin ---------------------------------------------------------------------------------------------------------


class PageQuery(msgspec.Struct):
    """Query of the operator's lists."""

    limit: Limit = 1000
    offset: Offset = 0


class AdminUser(msgspec.Struct):
    """One user as the operator sees it."""

    user_id: str
    username: str
    credits: Credits
    total_jobs: int
    created_at: str


class AdminUsers(msgspec.Struct):
    """Answer of ``GET /admin/users``."""

    users: list[AdminUser]
    total: int


class AdminHost(msgspec.Struct):
    """One host as the operator sees it."""

    host_id: str
    gpu: str
    status: str
    total_jobs_completed: int
    total_earnings: Credits
    last_heartbeat: str | None
    """Null: never."""


class AdminHosts(msgspec.Struct):
    """Answer of ``GET /admin/hosts``."""

    hosts: list[AdminHost]
    total: int


# -- errors --------------------------------------------------------------------------------------------------------


class FieldError(msgspec.Struct):
    """One invalid field, as reported by FastAPI."""

    loc: list[str | int]
    msg: str
    type: str


class InfrintiaRefused(msgspec.Struct):
    """Body of every refusal."""

    detail: str | list[FieldError]
    expected: int | msgspec.UnsetType = msgspec.UNSET
    """Number of the next piece expected, if one left a gap."""
    credits_needed: Credits | msgspec.UnsetType = msgspec.UNSET
    credits_free: Credits | msgspec.UnsetType = msgspec.UNSET
    nearest: str | msgspec.UnsetType = msgspec.UNSET
    """The path that comes closest to one that is not served."""
