"""Health: whether this coordinator works, and if not, what is wrong; every health check of every API reads it here."""

from comptoir.dispatch.core import Core
from comptoir.dispatch.drain import Shutdown
from comptoir.dispatch.duties import Duties
from comptoir.dispatch.meters import Meters
from comptoir.kit.db import CommitsLost
from comptoir.kit.vitals import HealthFinding


async def read_health(core: Core) -> dict[str, HealthFinding]:
    """Return ``database``, at most ``health_cache_s`` old, and whatever else is wrong now, by name.

    Unhealthy is who should get no new work: a balancer sends it to others, and an operator has to look.
    """
    findings = {"database": await core.state(Meters).database.read()}
    if core.db.lost:
        findings["commits"] = HealthFinding(False, 0.0, CommitsLost().message)
    if core.state(Shutdown).leaving:
        findings["intake"] = HealthFinding(False, 0.0, "the coordinator is shutting down")
    for duty, why in core.state(Duties).failing.items():
        findings[duty] = HealthFinding(False, 0.0, why)
    return findings


async def is_healthy(core: Core) -> bool:
    """Tell whether nothing is wrong."""
    return all(found.healthy for found in (await read_health(core)).values())
