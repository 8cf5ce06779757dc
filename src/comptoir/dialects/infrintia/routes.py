"""Endpoints of the Infrintia API: the fifteen published ones, then those that hosts and buyers need besides."""

from comptoir.dialects.infrintia import admin, hosts, jobs, market, users, wire
from comptoir.dialects.infrintia.errors import render_error, status_of
from comptoir.dispatch.errors import (
    AnswerTooLarge,
    BadSegment,
    FramesOutOfOrder,
    UnknownModel,
)
from comptoir.dispatch.submit import SUBMIT_ERRORS
from comptoir.hosts import UnknownHost
from comptoir.idempotency import IdempotencyMismatch
from comptoir.identity import EmailTaken, InvitationRefused, UsernameTaken
from comptoir.jobs import AnswerForgotten, JobFinished, NotYourLease, UnknownJob
from comptoir.kit.errors import InvalidField, NotAllowed
from comptoir.kit.http import Access, Dialect, Endpoint
from comptoir.ledger import BondNotCovered
from comptoir.receipts import KeyTaken

BUYING_ERRORS = (IdempotencyMismatch, *SUBMIT_ERRORS)
HOST_ERRORS = (UnknownHost, UnknownJob, NotYourLease)

PUBLISHED = (
    Endpoint(
        "GET", "/", market.platform, Access.PUBLIC, "Platform information and version.", response=wire.InfrintiaPlatform,
        tags=("public",),
    ),
    Endpoint("GET", "/health", market.health, Access.PUBLIC, "Health check.", response=wire.InfrintiaHealth, tags=("public",)),
    Endpoint(
        "GET", "/models", market.models, Access.PUBLIC, "List all available models on the marketplace.",
        response=wire.InfrintiaModels, tags=("public",),
    ),
    Endpoint(
        "GET", "/hosts", market.hosts, Access.PUBLIC, "List all registered hosts and their status.", query=wire.InfrintiaHostsQuery,
        response=wire.InfrintiaHosts, tags=("public",),
    ),
    Endpoint(
        "GET", "/metrics", market.metrics, Access.PUBLIC, "Platform-wide metrics.", response=wire.InfrintiaMetrics, tags=("public",)
    ),
    Endpoint(
        "POST", "/users", users.create, Access.PUBLIC, "Create a new user account.", request=wire.InfrintiaNewUser,
        response=wire.UserMade, status=201, idempotent=True,
        errors=(IdempotencyMismatch, InvitationRefused, NotAllowed, UsernameTaken, EmailTaken),
        example={"username": "alice", "email": "alice@example.com", "password": "secure-password-123"}, tags=("users",),
    ),
    Endpoint(
        "GET", "/users/me", users.me, Access.BUYER, "Get the authenticated user's profile and credit balance.",
        response=wire.InfrintiaMe, tags=("users",),
    ),
    Endpoint(
        "POST", "/run/model", jobs.run_model, Access.BUYER, "Submit an inference job.", request=wire.RunModel,
        response=wire.Accepted, status=202, errors=BUYING_ERRORS, idempotent=True,
        example={
            "model": "meta-llama/Llama-3-8B-Instruct", "input_text": "Explain quantum computing.", "max_tokens": 256,
            "temperature": 0.7,
        },
        tags=("jobs",),
    ),
    Endpoint(
        "GET", "/jobs", jobs.page, Access.BUYER, "List the authenticated user's jobs.", query=wire.InfrintiaJobsQuery,
        response=wire.InfrintiaJobs, tags=("jobs",), reads=True,
    ),
    Endpoint(
        "GET", "/jobs/{id}/stream", jobs.stream, Access.BUYER, "Stream job results via Server-Sent Events (SSE).",
        media="text/event-stream", errors=(InvalidField, UnknownJob, AnswerForgotten), tags=("jobs",),
        description=(
            "From the first token, or from the one after `Last-Event-ID`; ends with `[DONE]`. 410: the answer is no longer kept."
        ),
    ),
    Endpoint(
        "POST", "/hosts/register", hosts.register, Access.OPTIONAL, "Register a new GPU host on the marketplace.",
        request=wire.Register, response=wire.InfrintiaRegistered, status=201, idempotent=True,
        errors=(IdempotencyMismatch, BondNotCovered, InvitationRefused, NotAllowed, KeyTaken),
        example={
            "gpu": "NVIDIA A100 80GB", "models": ["meta-llama/Llama-3-8B-Instruct"], "price_per_token": 0.00012,
            "backend": "huggingface", "endpoint_url": "https://my-gpu-host.example.com/infer",
        },
        tags=("hosts",),
    ),
    Endpoint(
        "POST", "/hosts/heartbeat", hosts.heartbeat, Access.HOST, "Send a heartbeat to confirm the host is still active.",
        request=wire.Heartbeat, response=wire.Acknowledged, errors=(UnknownHost,), tags=("hosts",),
        example={"host_id": "host_xyz", "gpu_utilization": 0.45, "available_models": ["meta-llama/Llama-3-8B-Instruct"]},
    ),
    Endpoint(
        "POST", "/hosts/next-job", hosts.next_job, Access.HOST, "Poll for the next available job assigned to this host.",
        request=wire.NextJob, response=wire.Assigned, also=(204,), errors=(UnknownHost,), tags=("hosts",),
        example={"host_id": "host_xyz"},
        description="Held until a job comes; 204 without a body when none came in time.",
    ),
    Endpoint(
        "GET", "/admin/users", admin.users, Access.OPERATOR, "List all users on the platform.", query=wire.PageQuery,
        response=wire.AdminUsers, tags=("admin",), reads=True,
    ),
    Endpoint(
        "GET", "/admin/hosts", admin.hosts, Access.OPERATOR, "List all registered hosts.", query=wire.PageQuery,
        response=wire.AdminHosts, tags=("admin",), reads=True,
    ),
)  # fmt: skip
"""As in the reference, in its order."""

BESIDE = (
    Endpoint(
        "GET", "/models/{name:path}", market.model_named, Access.PUBLIC, "Show one model.", response=wire.InfrintiaModel,
        errors=(UnknownModel,), tags=("public",),
    ),
    Endpoint(
        "POST", "/users/rotate-key", users.rotate_key, Access.BUYER, "Revoke all your keys and get a new one.",
        response=wire.KeyMade, errors=(InvalidField, IdempotencyMismatch), idempotent=True, tags=("users",),
    ),
    Endpoint(
        "GET", "/jobs/{id}", jobs.show, Access.BUYER, "Show one of your jobs.", response=wire.InfrintiaJob, errors=(UnknownJob,),
        tags=("jobs",),
    ),
    Endpoint(
        "POST", "/jobs/{id}/cancel", jobs.cancel, Access.BUYER, "Stop one of your jobs; what was delivered is billed.",
        response=wire.InfrintiaJob, errors=(UnknownJob, JobFinished), tags=("jobs",),
    ),
    Endpoint(
        "POST", "/hosts/jobs/{id}/chunk", hosts.chunk, Access.HOST, "Deliver pieces of an answer.", request=wire.InfrintiaChunk,
        response=wire.ChunkTaken, errors=(*HOST_ERRORS, FramesOutOfOrder, AnswerTooLarge), tags=("hosts",),
        example={"host_id": "host_xyz", "seq": 0, "tokens": ["Quantum", " computing"]},
    ),
    Endpoint(
        "POST", "/hosts/complete-job/{id}", hosts.complete_job, Access.HOST, "Complete a job.",
        request=wire.Complete, response=wire.Completed,
        errors=(*HOST_ERRORS, FramesOutOfOrder, AnswerTooLarge, BadSegment), tags=("hosts",),
        example={"host_id": "host_xyz", "usage": {"prompt_tokens": 5, "completion_tokens": 192}},
    ),
    Endpoint(
        "POST", "/hosts/fail-job/{id}", hosts.fail_job, Access.HOST, "Give a job back.", request=wire.InfrintiaFail,
        response=wire.Failed, errors=HOST_ERRORS, tags=("hosts",),
        example={"host_id": "host_xyz", "error": "CUDA out of memory"},
    ),
)  # fmt: skip
"""Endpoints that Infrintia's newer documents name without bodies: the bodies are ours."""

DIALECT = Dialect(
    name="infrintia",
    title="Infrintia Compute Marketplace",
    prefix="/infrintia",
    endpoints=PUBLISHED + BESIDE,
    render_error=render_error,
    description="The published Infrintia API: credits in, tokens out; hosts poll for work or are pushed it.",
    owns=("/users", "/run", "/jobs", "/hosts", "/models", "/admin"),
    error_statuses=status_of,
    error_body=wire.InfrintiaRefused,
)
