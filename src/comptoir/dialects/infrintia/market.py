"""The public half: what the platform is, what it offers, how it does."""

from weakref import WeakKeyDictionary

from comptoir.dialects.infrintia import wire
from comptoir.dialects.infrintia.errors import encode
from comptoir.dialects.infrintia.render import host_card, model
from comptoir.dispatch import House
from comptoir.dispatch.errors import UnknownModel
from comptoir.jobs import JobState
from comptoir.kit.errors import Unavailable
from comptoir.kit.http import Reply, Request

PLATFORM = wire.Platform(
    "Infrintia Compute Marketplace", "1.0.0", "https://crossgl.github.io/crossgl-docs/pages/infrintia/overview/"
)
"""The published words: the name and version of the API spoken here, not of the server that speaks it."""


class _Counted:
    """Figures that cost a look at whole tables, and when they were taken."""

    __slots__ = ("at_s", "completed", "healthy", "users")

    def __init__(self, at_s: float, *, completed: int, users: int, healthy: bool) -> None:
        self.at_s = at_s
        self.completed = completed
        self.users = users
        self.healthy = healthy


_counted: WeakKeyDictionary[House, _Counted] = WeakKeyDictionary()


async def _figures(house: House) -> _Counted:
    """Return the figures, at most ``health_cache_s`` old."""
    now_s = house.clock.monotonic_s()
    known = _counted.get(house)
    if known is None or now_s - known.at_s > house.settings.health_cache_s:
        try:
            completed = (await house.jobs.counts())[JobState.COMPLETED]
            _, users = await house.identity.list_users(limit=1)
            known = _Counted(now_s, completed=completed, users=users, healthy=True)
        except Unavailable:
            known = _Counted(now_s, completed=0, users=0, healthy=False)
        _counted[house] = known
    return known


async def platform(house: House, request: Request) -> wire.Platform:
    """Say what this is."""
    return PLATFORM


async def health(house: House, request: Request) -> wire.Health | Reply:
    """Say how it is: 503 and ``unhealthy`` while shutting down or without the database."""
    healthy = (await _figures(house)).healthy and not house.draining
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
    figures = await _figures(house)
    if not figures.healthy:
        raise Unavailable("the database is out of reach")
    done = house.counts.get(JobState.COMPLETED, 0)
    mean_ms = house.latency_ms_sum // done if done else 0
    return wire.Metrics(figures.completed, house.fleet.active_hosts, figures.users, mean_ms)
