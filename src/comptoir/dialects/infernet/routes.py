"""Endpoints of the Infernet API: the eight published ones, and the hash by which contracts name containers."""

from typing import Any

from comptoir.chain import BadContainerSet, ChainExtraMissing, ChainRefusal, OldSubscription
from comptoir.containers import ContainerRefused
from comptoir.dialects.infernet import delegated, jobs, node, stream, wire
from comptoir.dialects.infernet.errors import NotLocal, NotUnderstood, render_error, status_of
from comptoir.dispatch.submit import SUBMIT_ERRORS
from comptoir.idempotency import IdempotencyMismatch
from comptoir.kit.errors import InvalidField, NotAllowed, NotAuthenticated
from comptoir.kit.http import Access, Dialect, Endpoint, Request, UnsupportedBody

CALLER_ERRORS = (NotAllowed, NotAuthenticated)
ITEM_ERRORS = (UnsupportedBody, InvalidField, ContainerRefused, *SUBMIT_ERRORS)
DELEGATED_ERRORS = (OldSubscription, ChainRefusal)

JOB = {"containers": ["classify", "summarize"], "data": {"text": "Ritual Infernet"}, "requires_proof": False}
JOB_UUID = "1548865f-e806-41df-a756-f427c1d2e395"

PUBLISHED = (
    Endpoint(
        "GET", "/health", node.health, Access.PUBLIC, "Retrieves server health.", response=wire.InfernetHealth, also=(503,),
        tags=("node",),
    ),
    Endpoint(
        "GET", "/info", node.info, Access.PUBLIC,
        "Retrieves information about the node, including which containers are running and the number of jobs pending.",
        response=wire.NodeInfo, tags=("node",),
    ),
    Endpoint(
        "GET", "/resources", node.resources, Access.PUBLIC,
        "Retrieves resources of the running containers, or whether they support a model.", query=wire.ResourcesQuery,
        response=dict[str, dict[str, Any]], errors=(InvalidField,), tags=("node",),
    ),
    Endpoint(
        "POST", "/api/jobs", jobs.create, Access.OPTIONAL, "Creates a new off-chain job.", request=wire.AnyRequest,
        response=wire.JobResponse, errors=(*CALLER_ERRORS, IdempotencyMismatch, *ITEM_ERRORS, *DELEGATED_ERRORS),
        idempotent=True, raw=True, decodes=False, example=JOB, answer_example={"id": JOB_UUID}, tags=("jobs",),
        description="The job is durable when it is answered. Delegated subscriptions are refused while no chain is enabled.",
    ),
    Endpoint(
        "POST", "/api/jobs/batch", jobs.create_batch, Access.OPTIONAL, "Creates jobs in batch.",
        request=list[wire.AnyRequest], response=list[wire.JobResponse],
        errors=(*CALLER_ERRORS, NotUnderstood, UnsupportedBody, InvalidField, IdempotencyMismatch), idempotent=True,
        raw=True, decodes=False, example=[JOB], answer_example=[{"id": JOB_UUID}], tags=("jobs",),
        description="Each item is answered for itself, in order: 200 also where some or all of them were refused.",
    ),
    Endpoint(
        "POST", "/api/jobs/stream", stream.create_stream, Access.OPTIONAL, "Creates a new off-chain streaming job.",
        request=wire.JobRequest, media="application/octet-stream",
        errors=(*CALLER_ERRORS, IdempotencyMismatch, *ITEM_ERRORS), idempotent=True, raw=True, decodes=False,
        example={"containers": ["summarize"], "data": {"text": "Ritual Infernet"}}, tags=("jobs",),
        description=(
            "The id and a line feed come first, alone; then the bytes of the last container. A job that fails ends the "
            "connection abnormally. Hanging up cancels."
        ),
    ),
    Endpoint(
        "GET", "/api/jobs", jobs.look, Access.OPTIONAL, "Retrieves the results of jobs, or lists the caller's job ids.",
        query=wire.InfernetJobsQuery, response=list[wire.JobResult], errors=(*CALLER_ERRORS, InvalidField), tags=("jobs",),
        answer_example=[
            {"id": JOB_UUID, "status": "success", "result": {"container": "classify", "output": {"label": "news"}}}
        ],
    ),
    Endpoint(
        "PUT", "/api/status", node.record, Access.OPTIONAL, "Registers job ID and status with the node; from localhost only.",
        request=wire.Status, response=None, errors=(NotLocal, *CALLER_ERRORS, NotUnderstood, InvalidField), tags=("jobs",),
        example={"id": JOB_UUID, "status": "success", "containers": ["classify"]},
    ),
)  # fmt: skip


BESIDE = (
    Endpoint(
        "GET",
        "/api/containers/hash",
        delegated.container_set,
        Access.PUBLIC,
        "Works out the hash that contracts name a set of containers by.",
        query=wire.ContainerSetQuery,
        response=wire.ContainerSet,
        errors=(InvalidField, BadContainerSet, ChainExtraMissing),
        tags=("node",),
    ),
)
"""Our addition: the published node keeps a table of all permutations instead."""


def rate_headers(request: Request) -> list[tuple[bytes, bytes]]:
    """Return the state of the caller's rate limit, in the node's headers."""
    rate = request.rate
    if rate is None:
        return []
    return [
        (b"ratelimit-limit", b"%d" % rate.limit),
        (b"ratelimit-remaining", b"%d" % rate.remaining),
        (b"ratelimit-reset", b"%d" % max(0, round(rate.reset_s))),
    ]


DIALECT = Dialect(
    name="infernet",
    title="Ritual Infernet node",
    prefix="/infernet",
    endpoints=PUBLISHED + BESIDE,
    render_error=render_error,
    description="The REST API of Ritual's Infernet node, over chains of containers that hosts of this trading post run.",
    headers=rate_headers,
    owns=("/api", "/info", "/resources"),
    error_statuses=status_of,
    error_body=wire.Error,
    large_without_key=lambda settings: settings.infernet_anonymous != "off",
    own_rate=lambda settings: settings.infernet_requests_per_minute,
    unlimited=frozenset(("/api/status",)),
)
