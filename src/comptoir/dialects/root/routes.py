"""Endpoints at the root: the paths that several published APIs share, the page, and the references."""

from collections.abc import Sequence

import msgspec

from comptoir import __version__
from comptoir.dialects.root.errors import Detail, render_error, status_of
from comptoir.dialects.root.metrics import exposition
from comptoir.dialects.root.wire import Checked, CoordinatorHealth, CoordinatorMetrics, MetricsQuery, PlatformInfo
from comptoir.dispatch import Core
from comptoir.dispatch.health import read_health
from comptoir.dispatch.meters import Meters
from comptoir.jobs import JobState
from comptoir.kit.clock import iso_utc
from comptoir.kit.http import Access, Dialect, Endpoint, NoSuchPath, Reply, Request, encode_json, shown
from comptoir.web import Shop, asset, base_url, playing, secured, viewer

DESCRIPTION = (
    """What several published APIs have at the same path, answered for all of them; the page; and the references."""
)

HTML = "text/html; charset=utf-8"

FORMER = {"house": "native"}
"""Former names of dialects and their current ones, so that old addresses still work."""


class Root:
    """Handlers of the root; *others* are the dialects that it documents."""

    def __init__(self, others: Sequence[Dialect]) -> None:
        self.dialect = Dialect(
            name="root",
            title="Comptoir at the root",
            prefix="",
            endpoints=_endpoints(self),
            render_error=render_error,
            description=DESCRIPTION,
            error_statuses=status_of,
            error_body=Detail,
        )
        self._shop = Shop((self.dialect, *others))

    async def home(self, core: Core, request: Request) -> Reply:
        """Say what this is: the page for browsers, three fields for programs."""
        base = base_url(core, request)
        if wants_html(request.header(b"accept")):
            return secured(self._shop.front(core, base), HTML, ((b"vary", b"accept"),))
        body = encode_json(PlatformInfo("Comptoir", __version__, f"{base}/docs"))
        return Reply(200, body, headers=((b"vary", b"accept"),))

    async def health(self, core: Core, request: Request) -> Reply:
        """Report whether the trading post works, from checks at most ``health_cache_s`` old."""
        checks = {
            name: Checked(found.healthy, round(found.took_ms, 3), msgspec.UNSET if found.healthy else found.words)
            for name, found in (await read_health(core)).items()
        }
        healthy = all(check.healthy for check in checks.values())
        body = CoordinatorHealth(
            "healthy" if healthy else "unhealthy",
            core.fleet.active_hosts,
            len(core.jobs.queue),
            iso_utc(core.clock.now_ms()),
            checks,
        )
        return Reply(200 if healthy else 503, encode_json(body), headers=((b"cache-control", b"no-store"),))

    async def metrics(self, core: Core, request: Request) -> Reply:
        """Return the trading post in figures, in the form requested."""
        query: MetricsQuery = request.query
        accept = request.header(b"accept")
        openmetrics = "application/openmetrics-text" in accept
        as_text = query.format == "prometheus" or (query.format is None and (openmetrics or "text/plain" in accept))
        if as_text:
            body, media = exposition(core, openmetrics=openmetrics)
            return Reply(200, body, media=media, headers=((b"vary", b"accept"),))
        meters = core.state(Meters)
        completed = meters.ended.get(JobState.COMPLETED, 0)
        numbers = CoordinatorMetrics(
            meters.ended_before.get(JobState.COMPLETED, 0) + completed,
            core.fleet.active_hosts,
            meters.users,
            round(meters.latency_ms_sum / completed) if completed else 0,
        )
        return Reply(200, encode_json(numbers), headers=((b"vary", b"accept"),))

    async def market(self, core: Core, request: Request) -> Reply:
        """Return the page's live part; nothing (204) if the page already has it."""
        fragment = self._shop.market(core)
        seen = dict(request.query_pairs()).get("seen", "")
        if seen == fragment.fingerprint:
            return Reply(204, headers=((b"cache-control", b"no-store"),))
        return secured(fragment.swap(), HTML, ((b"cache-control", b"no-store"),))

    async def work(self, core: Core, request: Request) -> Reply:
        """Show the page on which programs are run, and jobs looked at."""
        return playing(self._shop.work)

    async def asset(self, core: Core, request: Request) -> Reply:
        """Return a style, script or picture of the page; its name has a hash of its content, so it never changes."""
        found = asset(request.params["name"])
        if found is None:
            raise NoSuchPath(f"nothing is served at {shown(request.path)}")
        etag = f'"{found.name}"'.encode()
        headers = ((b"etag", etag), (b"cache-control", b"public, max-age=31536000, immutable"))
        if request.header(b"if-none-match").encode() == etag:
            return Reply(304, headers=headers)
        return secured(found.body, found.media, headers)

    async def docs(self, core: Core, request: Request) -> Reply:
        """List the dialects, each with its reference."""
        return secured(self._shop.index(), HTML)

    async def reference(self, core: Core, request: Request) -> Reply:
        """Return one dialect's reference page."""
        name = request.params["dialect"]
        if name in FORMER:
            return _moved(f"/docs/{FORMER[name]}")
        page = self._shop.reference(name)
        if page is None:
            raise NoSuchPath(f"no dialect is called {shown(name)!r}; GET /docs lists them")
        return viewer(page)

    async def openapi(self, core: Core, request: Request) -> Reply:
        """Return one dialect's OpenAPI document."""
        file = request.params["file"]
        name = file.removesuffix(".json")
        if name in FORMER and name != file:
            return _moved(f"/openapi/{FORMER[name]}.json")
        document = self._shop.document(name)
        if document is None or name == file:
            raise NoSuchPath(f"no dialect is called {shown(name)!r}; GET /docs lists them")
        return Reply(200, document)


def _moved(address: str) -> Reply:
    return Reply(308, headers=((b"location", address.encode()),))


def wants_html(accept: str) -> bool:
    """Tell whether *accept* names HTML, as browsers do; a bare ``*/*`` gets JSON."""
    return "text/html" in accept


def root_dialect(others: Sequence[Dialect]) -> Dialect:
    """Return the root's dialect, which documents *others* beside itself."""
    return Root(others).dialect


def _endpoints(root: Root) -> tuple[Endpoint, ...]:
    return (
        Endpoint(
            "GET", "/", root.home, Access.PUBLIC, "Identify the server; for browsers, a page.", response=PlatformInfo,
            media_also=("text/html",),
            answer_example={"name": "Comptoir", "version": "0.1.0", "docs": "http://127.0.0.1:8080/docs"},
        ),
        Endpoint(
            "GET", "/health", root.health, Access.PUBLIC, "Report whether the trading post works; 503 if it does not.",
            response=CoordinatorHealth, also=(503,),
            answer_example={
                "status": "healthy", "active_hosts": 24, "queued_jobs": 3, "timestamp": "2026-01-13T12:00:00Z",
                "checks": {"database": {"healthy": True, "response_time_ms": 0.4}},
            },
        ),
        Endpoint(
            "GET", "/metrics", root.metrics, Access.PUBLIC,
            "Return the trading post in figures: JSON, or Prometheus text where Accept names text/plain or openmetrics.",
            query=MetricsQuery, response=CoordinatorMetrics, media_also=("text/plain", "application/openmetrics-text"),
            answer_example={
                "total_jobs_completed": 152340, "active_hosts": 24, "total_users": 1830, "avg_job_latency_ms": 3200,
            },
        ),
        Endpoint("GET", "/docs", root.docs, Access.PUBLIC, "List the dialects and their references.", media="text/html"),
        Endpoint(
            "GET", "/docs/{dialect}", root.reference, Access.PUBLIC, "Show a dialect's reference.",
            media="text/html", also=(308,), errors=(NoSuchPath,),
        ),
        Endpoint(
            "GET", "/openapi/{file}", root.openapi, Access.PUBLIC,
            "Give a dialect's OpenAPI document, for example /openapi/infrintia.json.", also=(308,), errors=(NoSuchPath,),
        ),
        Endpoint(
            "GET", "/ui/market", root.market, Access.PUBLIC, "Return the live part of the page.", media="text/html",
            also=(204,),
        ),
        Endpoint(
            "GET", "/work", root.work, Access.PUBLIC, "Show the page of programs and jobs.", media="text/html",
        ),
        Endpoint(
            "GET", "/ui/{name}", root.asset, Access.PUBLIC, "Return a style sheet, script or picture of the page.",
            media="text/css", media_also=("text/javascript", "image/svg+xml"), also=(304,), errors=(NoSuchPath,),
        ),
    )  # fmt: skip
