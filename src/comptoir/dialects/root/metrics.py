"""The trading post as Prometheus metrics: read from counters in memory, no query, nothing per job or per host."""

from collections.abc import Iterator
from heapq import nlargest

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector, CollectorRegistry

from comptoir.dispatch import Core
from comptoir.dispatch.deferred_settlements import DeferredSettlements
from comptoir.dispatch.drain import Shutdown
from comptoir.dispatch.duties import Duties, Duty
from comptoir.dispatch.files import Files
from comptoir.dispatch.meters import Meters
from comptoir.gateway import Connections
from comptoir.hosts import SUSPENDED
from comptoir.jobs import FINAL
from comptoir.kinds import TOKEN_OUT

MODELS_MAX = 50
"""Models whose queue is reported individually, longest first: hosts choose names, and a scrape must stay bounded."""


class CoreCollector(Collector):
    """Reads one core whenever it is scraped."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        yield from self._requests()
        yield from self._connections()
        yield from self._jobs()
        yield from self._files()
        yield from self._fleet()
        yield from self._writer()
        yield from self._others()
        yield from self._loop()

    def _requests(self) -> Iterator[Metric]:
        labels = ("dialect", "method", "path")
        requests = CounterMetricFamily("comptoir_http_requests", "Requests answered.", labels=(*labels, "status"))
        seconds = CounterMetricFamily(
            "comptoir_http_request_seconds", "Seconds spent on them, streams and long polls included.", labels=labels
        )
        # An endpoint served at the root and under its prefix is one endpoint.
        totals: dict[tuple[str, str, str], tuple[dict[int, int], float]] = {}
        for one in self._core.state(Meters).served:
            if not one.by_status:
                continue
            by_status, spent_s = totals.setdefault((one.dialect, one.method, one.path), ({}, 0.0))
            for status, count in one.by_status.items():
                by_status[status] = by_status.get(status, 0) + count
            totals[one.dialect, one.method, one.path] = by_status, spent_s + one.seconds
        for endpoint, (by_status, spent_s) in sorted(totals.items()):
            seconds.add_metric(endpoint, spent_s)
            for status, count in sorted(by_status.items()):
                requests.add_metric((*endpoint, str(status)), count)
        yield requests
        yield seconds

    def _connections(self) -> Iterator[Metric]:
        traffic = self._core.state(Connections).traffic
        yield GaugeMetricFamily("comptoir_connections", "Open connections, links included.", traffic.connections)
        held = GaugeMetricFamily(
            "comptoir_held_bytes",
            "Bytes that connections hold: incomplete heads, bodies, messages; answers.",
            labels=("what",),
        )
        for what, budget in (
            ("heads", traffic.heads), ("bodies", traffic.bodies), ("messages", traffic.messages), ("readers", traffic.readers),
        ):  # fmt: skip
            held.add_metric((what,), budget.held)
        yield held
        refused = CounterMetricFamily(
            "comptoir_bounded", "Connections closed and requests refused for a bound of theirs.", labels=("setting",)
        )
        for setting, count in sorted(traffic.refused.items()):
            refused.add_metric((setting,), count)
        yield refused

    def _jobs(self) -> Iterator[Metric]:
        core, meters = self._core, self._core.state(Meters)
        ended = CounterMetricFamily("comptoir_jobs_ended", "Jobs that ended since the start.", labels=("state",))
        for state in sorted(FINAL):
            ended.add_metric((state,), meters.ended.get(state, 0))
        yield ended
        yield GaugeMetricFamily("comptoir_jobs_waiting", "Jobs waiting for a host.", len(core.jobs.queue))
        by_model = GaugeMetricFamily(
            "comptoir_jobs_waiting_by_model", f"The same, for the {MODELS_MAX} longest lines.", labels=("model",)
        )
        for model, count in nlargest(MODELS_MAX, core.jobs.queue.models().items(), key=lambda line: line[1]):
            by_model.add_metric((model,), count)
        yield by_model
        yield GaugeMetricFamily("comptoir_jobs_leased", "Jobs that hosts work on.", core.jobs.live.leased)
        yield GaugeMetricFamily("comptoir_chains", "Chains of containers that are not over.", core.jobs.live.staged)
        yield CounterMetricFamily("comptoir_frames", "Frames taken from hosts.", meters.frames)
        yield CounterMetricFamily("comptoir_tokens", "LLM tokens in them.", meters.units.get(TOKEN_OUT.name, 0))
        units = CounterMetricFamily(
            "comptoir_units", "What they stand for, in the units of their kinds.", labels=("unit",)
        )
        for unit, count in sorted(meters.units.items()):
            units.add_metric((unit,), count)
        yield units

    def _files(self) -> Iterator[Metric]:
        files = self._core.state(Files)
        standing = files.standing
        yield GaugeMetricFamily("comptoir_files", "Files of all owners at the last sweep, uploads too.", standing.files)
        yield GaugeMetricFamily("comptoir_files_bytes", "Bytes that they count.", standing.bytes_counted)
        yield GaugeMetricFamily("comptoir_uploads_open", "Those of them that are not complete.", standing.uploads)
        moved = CounterMetricFamily(
            "comptoir_file_bytes", "Bytes of files, stored (up) and sent (down) here.", labels=("direction",)
        )
        moved.add_metric(("up",), files.bytes_in)
        moved.add_metric(("down",), files.bytes_out)
        yield moved
        yield CounterMetricFamily("comptoir_artifacts", "Files that jobs made and results named.", files.artifacts)

    def _fleet(self) -> Iterator[Metric]:
        hosts = GaugeMetricFamily("comptoir_hosts", "Registered hosts.", labels=("status",))
        for status, count in self._core.fleet.by_status().items():
            hosts.add_metric((status,), count)
        hosts.add_metric((SUSPENDED,), len(self._core.hosts.suspended))
        yield hosts
        fleet = self._core.fleet
        yield GaugeMetricFamily("comptoir_models", "Models that can be bought now.", fleet.catalog.model_count)
        yield GaugeMetricFamily(
            "comptoir_containers", "Containers that can be bought now.", fleet.catalog.container_count
        )

    def _writer(self) -> Iterator[Metric]:
        db, stats = self._core.db, self._core.db.stats
        yield CounterMetricFamily("comptoir_db_commits", "Transactions committed.", stats.commits)
        yield CounterMetricFamily("comptoir_db_commands", "Commands written by them.", stats.commands)
        yield CounterMetricFamily("comptoir_db_commit_seconds", "Seconds spent in COMMIT.", stats.commit_s)
        yield CounterMetricFamily("comptoir_db_writer_cpu_seconds", "CPU of the writer thread.", stats.cpu_s)
        yield GaugeMetricFamily("comptoir_db_commands_waiting", "Commands that wait for the writer.", db.waiting)
        yield GaugeMetricFamily("comptoir_db_away", "1 while the database is out of reach.", float(db.unavailable))
        yield GaugeMetricFamily(
            "comptoir_commits_lost", "1 while commits that were confirmed are missing from it.", float(db.lost)
        )
        waiting = len(self._core.state(DeferredSettlements))
        yield GaugeMetricFamily("comptoir_ends_waiting", "Ends of jobs that wait for it.", waiting)

    def _others(self) -> Iterator[Metric]:
        standing = self._core.peers.cluster_status()
        if standing is None:
            return
        yield GaugeMetricFamily(
            "comptoir_coordinators", "Coordinators that are alive, this one included.", 1 + standing.others
        )
        yield GaugeMetricFamily(
            "comptoir_bus_up", "1 while the others can be reached over the bus.", float(standing.bus_up)
        )
        yield CounterMetricFamily("comptoir_bus_gaps", "Times that messages of another were found lost.", standing.gaps)
        yield GaugeMetricFamily("comptoir_jobs_mirrored", "Jobs of others that are read here.", standing.mirrors)
        yield CounterMetricFamily("comptoir_jobs_taken_over", "Jobs taken over from others.", standing.taken_over)

    def _loop(self) -> Iterator[Metric]:
        core, meters = self._core, self._core.state(Meters)
        lag = meters.lag
        yield GaugeMetricFamily("comptoir_loop_lag_seconds", "How late the event loop ran, last sample.", lag.last_s)
        yield GaugeMetricFamily("comptoir_loop_lag_worst_seconds", "The worst since the start.", lag.worst_s)
        up_s = core.clock.monotonic_s() - meters.started_s
        yield GaugeMetricFamily("comptoir_uptime_seconds", "Seconds since the start.", up_s)
        failing = GaugeMetricFamily(
            "comptoir_duty_failing", "1 while something that must go on fails.", labels=["duty"]
        )
        for duty in Duty:
            failing.add_metric((duty,), float(duty in core.state(Duties).failing))
        yield failing
        leaving = core.state(Shutdown).leaving
        yield GaugeMetricFamily("comptoir_draining", "1 from the beginning of a stop on.", float(leaving))


def exposition(core: Core, *, openmetrics: bool) -> tuple[bytes, str]:
    """Return the scrape of *core* and its content type."""
    registry = CollectorRegistry()
    registry.register(CoreCollector(core))
    ProcessCollector(registry=registry)
    if openmetrics:
        return generate_openmetrics(registry), OPENMETRICS_TYPE  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
