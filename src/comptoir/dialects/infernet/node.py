"""The node: health, info and resources, all from memory, and the statuses that other local programs report."""

import msgspec

from comptoir import __version__
from comptoir.containers import RecordedStatuses, RemoteContainers, model_support
from comptoir.dialects.infernet import wire
from comptoir.dialects.infernet.callers import caller_of
from comptoir.dialects.infernet.errors import NotLocal, NotUnderstood
from comptoir.dialects.infernet.translate import job_id_of
from comptoir.dispatch import Core
from comptoir.dispatch.health import is_healthy
from comptoir.gateway import is_local
from comptoir.jobs import UnknownJob
from comptoir.kit.http import Reply, Request

NODE_VERSION = "1.4.0"
"""Version of Ritual's node whose API this is."""

NULL = b"null"

UNKNOWN_YET = msgspec.json.encode(
    {"supported": False, "error": "the container has not answered yet; ask again in a moment"}
)

STATUSES = ("success", "failed", "running")

encode = msgspec.json.Encoder().encode


async def health(core: Core, request: Request) -> wire.InfernetHealth | Reply:
    """Report whether the node works; 503 where it does not (`dispatch.health`)."""
    healthy = await is_healthy(core)
    body = wire.InfernetHealth("healthy" if healthy else "unhealthy")
    return body if healthy else Reply(503, encode(body))


async def info(core: Core, request: Request) -> wire.NodeInfo:
    """Return what the node is and which containers are on offer."""
    containers = [
        wire.InfernetContainer(one.name, one.description, one.external, one.image)
        for one in core.fleet.catalog.containers()
    ]
    pending = wire.Pending(offchain=core.jobs.live.staged + core.state(RemoteContainers).staged_jobs, onchain=0)
    return wire.NodeInfo(f"{NODE_VERSION}+comptoir.{__version__}", containers, pending, wire.Chain(False, ""))


async def resources(core: Core, request: Request) -> Reply:
    """Return what each container reports about itself, or about a model, verbatim."""
    query: wire.ResourcesQuery = request.query
    if query.model_id is None:
        return Reply(200, _joined(core.fleet.resources()))
    said = await model_support(core, query.model_id)
    return Reply(200, _joined({name: body or UNKNOWN_YET for name, body in said.items()}))


def _joined(of: dict[str, bytes]) -> bytes:
    return b"{" + b",".join([encode(name) + b":" + body for name, body in of.items()]) + b"}"


async def record(core: Core, request: Request) -> Reply:
    """Record the status of work that a container on this machine does on its own."""
    if not is_local(request):
        raise NotLocal
    caller = caller_of(core, request)
    body: wire.Status = request.body
    if body.status not in STATUSES:
        raise NotUnderstood("Status is invalid", {"status": body.status})
    if "\0" in "".join((body.id, *body.containers)):
        raise NotUnderstood("NUL can't be part of a name", {"id": body.id})
    if await _is_job(core, body.id):
        raise NotUnderstood("The job is run here, which says how it stands", {"id": body.id})
    await core.state(RecordedStatuses).put(
        caller.scope, body.id, status=body.status, containers=body.containers, at_ms=core.clock.now_ms()
    )
    return Reply(200, NULL)


async def _is_job(core: Core, name: str) -> bool:
    """Tell whether *name* is a job that was bought here, by anybody: its status can't be reported."""
    job_id = job_id_of(name)
    if job_id is None:
        return False
    try:
        await core.jobs.get(job_id)
    except UnknownJob:
        return False
    return True
