"""Bodies of the shared paths at the root: unions of the published APIs' answers."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class PlatformInfo(msgspec.Struct):
    """Answer of ``GET /``."""

    name: str
    version: str
    docs: str
    """Address of the reference."""


class Checked(msgspec.Struct):
    """One part of the trading post and whether it works."""

    healthy: bool
    response_time_ms: float
    error: str | msgspec.UnsetType = msgspec.UNSET
    """What is wrong; absent when nothing is."""


class CoordinatorHealth(msgspec.Struct):
    """Answer of ``GET /health``: Infrintia's fields, then AIServe's."""

    status: Literal["healthy", "unhealthy"]
    active_hosts: int
    queued_jobs: int
    timestamp: str
    checks: dict[str, Checked]


class MetricsQuery(msgspec.Struct):
    """The format of the metrics, given in the address."""

    format: Annotated[Literal["json", "prometheus"] | None, Meta(description="Wins over the Accept header.")] = None


class CoordinatorMetrics(msgspec.Struct):
    """Answer of ``GET /metrics`` as JSON, as Infrintia publishes it."""

    total_jobs_completed: int
    active_hosts: int
    total_users: int
    avg_job_latency_ms: int
    """Average time from submit to end of jobs completed since the start; 0 before the first."""
