"""Bodies of the Infernet API as in the reference; docstrings say what the real node and client do beyond it."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from comptoir.containers import RECORDED_CONTAINERS_MAX, RECORDED_NAME_CHARS_MAX

CONTAINERS_MAX = 32
"""Longest chain: each container holds money and keeps its output until the end."""

CONTAINER_CHARS_MAX = 256
"""Longest id of a container, as a host may offer it."""

BATCH_MAX = 1_000
"""Most jobs of one batch; they are written together."""

IDS_MAX = 1_000
"""Most ids asked for at once."""

RESULTS_BYTES_MAX = 64 * 1024 * 1024
"""Most bytes of results asked for at once: two of the largest that a job may have; a repeated id counts each time."""

LIST_MAX = 10_000
"""Most ids of one list; ``limit`` and ``before`` page through more."""

ContainerId = Annotated[str, Meta(max_length=CONTAINER_CHARS_MAX)]

QueryWord = Annotated[str, Meta(max_length=256)]


class InfernetHealth(msgspec.Struct):
    """Health of the node."""

    status: str
    """``healthy`` or ``unhealthy``."""


class InfernetContainer(msgspec.Struct):
    """A container on offer, over all hosts that serve it."""

    id: str
    description: str
    """Empty where its hosts say none."""
    external: bool
    """Whether it can be the first container of a job."""
    image: str
    """May be empty."""


class Pending(msgspec.Struct):
    """Jobs that are not over."""

    offchain: int
    onchain: int


class Chain(msgspec.Struct):
    """The chain that the node delivers on."""

    enabled: bool
    address: str
    """Empty while it delivers on none."""


class NodeInfo(msgspec.Struct):
    """What the node is and serves."""

    version: str
    """Version of Ritual's node whose API this is, with ours behind the plus."""
    containers: list[InfernetContainer]
    pending: Pending
    chain: Chain


class ResourcesQuery(msgspec.Struct):
    """Query of ``GET /resources``."""

    model_id: Annotated[str, Meta(max_length=2048)] | None = None
    """Ask every container whether it supports this model."""


class JobRequest(msgspec.Struct):
    """A job that runs one or more containers, each on what the one before it made. Other fields are ignored."""

    containers: Annotated[list[ContainerId], Meta(max_length=CONTAINERS_MAX)]
    """Ids of the containers, in order."""
    data: dict[str, Any]
    """Input of the first container."""
    requires_proof: bool | None = None
    """Whether the last container has to prove its result."""


class AnyRequest(msgspec.Struct):
    """A job (``containers``, ``data``) or a delegated subscription (``subscription``, ``signature``, ``data``)."""

    data: dict[str, Any]
    """Input of the first container."""
    containers: Annotated[list[ContainerId], Meta(max_length=CONTAINERS_MAX)] | UnsetType = UNSET
    """Ids of the containers, in order."""
    requires_proof: bool | None = None
    """Whether the last container has to prove its result."""
    subscription: Annotated[dict[str, Any], Meta(max_length=64)] | UnsetType = UNSET
    """owner, active_at, period, frequency, redundancy, containers (hash), lazy, verifier, payment_amount,
    payment_token, wallet."""
    signature: Annotated[dict[str, Any], Meta(max_length=64)] | UnsetType = UNSET
    """nonce, expiry, v, r, s: EIP-712, over the subscription."""


class JobResponse(msgspec.Struct):
    """What became of a request: a job, or (in a batch) what was wrong with it."""

    id: str | UnsetType = UNSET
    """UUID of the job."""
    error: str | UnsetType = UNSET
    params: dict[str, Any] | UnsetType = UNSET


class ContainerResult(msgspec.Struct):
    """Output of a container, or its error."""

    container: str
    output: Any | UnsetType = UNSET
    """The JSON that it answered, to the byte; of a stream ``{"output": text}``."""
    error: str | UnsetType = UNSET


class JobResult(msgspec.Struct):
    """How a job stands."""

    id: str
    status: str
    """``running``, ``success`` or ``failed``."""
    result: ContainerResult | None
    """Of the last container, or of the one that failed; null while it runs."""
    intermediate_results: list[ContainerResult] | UnsetType = UNSET
    """Of the containers before, where ``intermediate=true`` asked for them."""


class InfernetJobsQuery(msgspec.Struct):
    """Query of ``GET /api/jobs``. ``limit`` and ``before`` are ours."""

    id: Annotated[list[QueryWord], Meta(max_length=IDS_MAX)] | None = None
    """Job ids; repeat it for several. Without it the caller's job ids are listed."""
    intermediate: QueryWord | None = None
    """``true``: with the results of the containers before the last."""
    pending: QueryWord | None = None
    """``true``: jobs that are not over; ``false``: those that are; anything else: all."""
    limit: Annotated[int, Meta(ge=1, le=LIST_MAX)] = LIST_MAX
    """Most ids listed, the newest first."""
    before: QueryWord | None = None
    """List those older than this job."""


class Status(msgspec.Struct):
    """What a container that does not speak Infernet says of a job of its own."""

    id: Annotated[str, Meta(min_length=1, max_length=RECORDED_NAME_CHARS_MAX)]
    status: QueryWord
    """``success``, ``failed`` or ``running``."""
    containers: Annotated[list[ContainerId], Meta(max_length=RECORDED_CONTAINERS_MAX)]


class ContainerSetQuery(msgspec.Struct):
    """Query of ``GET /api/containers/hash``."""

    containers: Annotated[str, Meta(min_length=1, max_length=CONTAINERS_MAX * CONTAINER_CHARS_MAX)]
    """Container ids, in order, separated by commas."""


class ContainerSet(msgspec.Struct):
    """A chain of containers as contracts name it."""

    containers: list[str]
    hash: str
    """0x and 64 hexadecimal digits: keccak256(abi.encode(string)) of the ids joined by commas."""


class Error(msgspec.Struct):
    """Every refusal."""

    error: str
    params: dict[str, Any] | UnsetType = UNSET
    """Facts about it, if there are any."""
