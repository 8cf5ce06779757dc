"""The public half: what the platform is, what it offers, how it does."""

from comptoir.dialects.infrintia import wire
from comptoir.dialects.infrintia.errors import encode
from comptoir.dialects.infrintia.render import host_card, model
from comptoir.dispatch import House
from comptoir.dispatch.drain import Shutdown
from comptoir.dispatch.errors import UnknownModel
from comptoir.dispatch.meters import Meters
from comptoir.jobs import JobState
from comptoir.kit.http import Reply, Request

PLATFORM = wire.Platform(
    "Infrintia Compute Marketplace", "1.0.0", "https://crossgl.github.io/crossgl-docs/pages/infrintia/overview/"
)
"""The published words: the name and version of the API spoken here, not of the server that speaks it."""


async def platform(house: House, request: Request) -> wire.Platform:
    """Say what this is."""
    return PLATFORM


async def health(house: House, request: Request) -> wire.Health | Reply:
    """Say how it is: 503 and ``unhealthy`` while shutting down or without the database."""
    healthy = (await house.state(Meters).database.read()).healthy and not house.state(Shutdown).leaving
    body = wire.Health("healthy" if healthy else "unhealthy", house.fleet.active_hosts, len(house.jobs.queue))
    return body if healthy else Reply(503, encode(body))


async def models(house: House, request: Request) -> wire.Models:
    """List what active hosts offer."""
    return wire.Models([model(summary) for summary in house.fleet.models()])


async def model_named(house: House, request: Request) -> wire.Model:
    """Show one model; its name may contain slashes."""
    name, offered = request.params["name"], house.fleet.models()
    for summary in offered:
        if summary.name == name:
            return model(summary)
    raise UnknownModel(name, tuple(summary.name for summary in offered))


async def hosts(house: House, request: Request) -> wire.Hosts:
    """List registered hosts, those of a model or a status if asked."""
    asked: wire.HostsQuery = request.query
    found, _ = house.fleet.list_hosts(limit=asked.limit, offset=asked.offset, status=asked.status, model=asked.model)
    return wire.Hosts([host_card(host) for host in found])


async def metrics(house: House, request: Request) -> wire.Metrics:
    """Give the platform's figures; the mean latency is over the jobs completed since this coordinator started."""
    meters = house.state(Meters)
    done = meters.ended.get(JobState.COMPLETED, 0)
    mean_ms = meters.latency_ms_sum // done if done else 0
    completed = meters.ended_before.get(JobState.COMPLETED, 0) + done
    return wire.Metrics(completed, house.fleet.active_hosts, meters.users, mean_ms)
