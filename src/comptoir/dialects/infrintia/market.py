"""The public part: what the platform is, what it offers, and its figures."""

from comptoir.dialects.infrintia import wire
from comptoir.dialects.infrintia.errors import encode
from comptoir.dialects.infrintia.render import host_card, model
from comptoir.dispatch import Core
from comptoir.dispatch.errors import UnknownModel
from comptoir.dispatch.health import is_healthy
from comptoir.dispatch.meters import Meters
from comptoir.gateway import Rendered, in_slices, offers_shown
from comptoir.hosts import Host, ModelSummary
from comptoir.jobs import JobState
from comptoir.kit.http import Reply, Request

PLATFORM = wire.InfrintiaPlatform(
    "Infrintia Compute Marketplace", "1.0.0", "https://crossgl.github.io/crossgl-docs/pages/infrintia/overview/"
)
"""The published strings: name and version of the API, not of the server."""


async def platform(core: Core, request: Request) -> wire.InfrintiaPlatform:
    """Identify the platform."""
    return PLATFORM


async def health(core: Core, request: Request) -> wire.InfrintiaHealth | Reply:
    """Report health: 503 and ``unhealthy`` where something is wrong (`dispatch.health`)."""
    healthy = await is_healthy(core)
    body = wire.InfrintiaHealth("healthy" if healthy else "unhealthy", core.fleet.active_hosts, len(core.jobs.queue))
    return body if healthy else Reply(503, encode(body))


async def models(core: Core, request: Request) -> Reply:
    """List what active hosts offer."""
    return core.state(Rendered).reply(_models, core.fleet.models())


def _models(summaries: list[ModelSummary]) -> wire.InfrintiaModels:
    return wire.InfrintiaModels([model(summary) for summary in summaries])


async def model_named(core: Core, request: Request) -> wire.InfrintiaModel:
    """Return one model; its name may contain slashes."""
    name = request.params["name"]
    summary = core.fleet.model(name)
    if summary is None:
        raise UnknownModel(name, tuple(summary.name for summary in core.fleet.models()))
    return model(summary)


async def hosts(core: Core, request: Request) -> wire.InfrintiaHosts:
    """List registered hosts, optionally those of a model or status."""
    asked: wire.InfrintiaHostsQuery = request.query
    found, _ = core.fleet.list_hosts(limit=asked.limit, offset=asked.offset, status=asked.status, model=asked.model)

    def card(host: Host) -> wire.HostCard:
        return host_card(host, offers_shown(host, hosts=len(found), first=asked.model))

    return wire.InfrintiaHosts(await in_slices(card, found))


async def metrics(core: Core, request: Request) -> wire.InfrintiaMetrics:
    """Return the platform's figures; the mean latency is over jobs completed since this coordinator started."""
    meters = core.state(Meters)
    done = meters.ended.get(JobState.COMPLETED, 0)
    mean_ms = meters.latency_ms_sum // done if done else 0
    completed = meters.ended_before.get(JobState.COMPLETED, 0) + done
    return wire.InfrintiaMetrics(completed, core.fleet.active_hosts, meters.users, mean_ms)
