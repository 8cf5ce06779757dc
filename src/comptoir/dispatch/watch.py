"""Watch: tell a lost host from a slow one, by comparing its silence with what is normal for it.

Silence is time in which nothing of the answer comes: frames that show nothing do not end it. What is normal for a
newcomer before its first piece is what is normal for the model's proven hosts, and not what it might claim to need.

A lease is revoked early only if another host is free to continue the job: moving it costs the buyer a pause of some
milliseconds and the host its pay for the rest, and waiting costs nothing when no other host could run it. If most hosts
fall silent at the same moment, the network or this process is the cause, and all get the full time.
"""

import asyncio
import logging
from collections import deque
from itertools import islice
from statistics import median

from msgspec.structs import replace

from comptoir.dispatch.assign import revoke_lease, spec_now
from comptoir.dispatch.core import Core, State
from comptoir.dispatch.drain import Shutdown
from comptoir.dispatch.extend import waits_for_more
from comptoir.jobs import Fault, Lease, LiveJob
from comptoir.kinds import Resume
from comptoir.kit.errors import Refusal
from comptoir.routing import choose

log = logging.getLogger(__name__)

RELINK_S = 10.0
"""How long a host whose link dropped may take to reconnect with its frames before its leases are revoked."""

RELINK_BRIEF_S = 0.2
"""The same if another host is free: a worker whose connection broke redials within 50 ms, a killed one never does."""

TOGETHER_MIN = 4
"""If at least so many hosts, and more than half of all, go silent or disconnect together, they are not at fault."""

TOGETHER_S = 1.0
"""Links that drop within this time drop together."""

GAPS = 2.0
"""A pause of up to this many times the host's longest recent one is still taken as normal."""


USUAL_S = 5.0
"""How long the usual time of a model's proven hosts is reused."""

USUAL_OF_MAX = 1_000
"""Most hosts of a model that are looked at for it."""

MODELS_MAX = 10_000
"""Models whose usual times are cached; beyond it the cache is cleared."""


class UsualPace(State):
    """Cached 99th percentiles of first frames by model, each with the time at which it expires; 0: not known."""

    def __init__(self, core: Core) -> None:
        self.first_ms: dict[str, tuple[float, float]] = {}


class Drops(State):
    """Links that dropped recently."""

    def __init__(self, core: Core) -> None:
        self.at_s: deque[float] = deque()
        """Monotonic times, oldest first."""


def why_lost(core: Core, job: LiveJob, lease: Lease, now_s: float) -> str:
    """Return why *lease* must be revoked now; empty: it must not."""
    settings = core.settings
    silent_s = now_s - lease.touched_s
    waits = waits_for_more(core, job, lease)  # For our word whether it may go on: its silence is ours.
    if silent_s > silence_max_s(core, job, lease, now_s) and not waits:
        return f"no frame for {silent_s:.0f} s"
    if lease.host_id not in core.channels:
        if silent_s > RELINK_S:
            return "its link dropped and did not come back"
        gone_s = now_s - lease.dropped_s
        if lease.dropped_s and gone_s >= RELINK_BRIEF_S and not _all_dropped(core, now_s) and _somebody_free(core, job):
            return f"its link dropped and was not back after {gone_s:.1f} s"
    elif (
        not waits
        and silent_s > settings.stall_floor_s
        and silent_s > patience_s(core, job, lease)
        and _somebody_free(core, job)
    ):
        return f"no frame for {silent_s:.1f} s, which is not normal for it"
    return ""


def silence_max_s(core: Core, job: LiveJob, lease: Lease, now_s: float) -> float:
    """Return the longest silence of a lease: ``lease_s``, or what is normal for its kind where that is longer.

    A host that sends frames without content while it reads a long prompt has the time to read it besides.
    """
    if job.kind.steady:
        lease_s = core.settings.lease_s
        reads = not lease.delivers and now_s - lease.reads_s < lease_s
        return lease_s + job.kind.reading_s(job.terms) if reads else lease_s
    host = core.fleet.find(lease.host_id)
    offers = host.row.models if host is not None else ()
    offer = next((offer for offer in offers if offer.name == lease.model), None)
    return max(core.settings.lease_s, job.kind.silence_max_s(offer))


def patience_s(core: Core, job: LiveJob, lease: Lease) -> float:
    """Return how long the host of *lease* may be silent before it counts as lost, at most ``lease_s``."""
    settings, fleet = core.settings, core.fleet
    host = fleet.find(lease.host_id)
    if job.kind.quiet_s and host is not None and host.reach.sends_as_made:
        # It shows that it lives all the time; before its first sign it may have to fetch what it begins with.
        usual_s = max(settings.stall_floor_s if lease.delivers else settings.stall_first_floor_s, job.kind.quiet_s)
        return min(usual_s, settings.lease_s)
    if not job.kind.steady:
        return silence_max_s(core, job, lease, core.clock.monotonic_s())
    if host is None or not host.reach.sends_as_made:
        return settings.lease_s  # It may send everything at the end.
    pace = fleet.pace(lease.host_id, lease.model)
    if not lease.delivers:
        if usual_ms := _usual_first_ms(core, lease):
            usual_s = settings.stall_factor * max(usual_ms, pace.first_frame_p50_ms) / 1000
        else:
            usual_s = max(settings.stall_first_floor_s, settings.stall_factor * pace.first_frame_p99_ms / 1000)
        usual_s += job.kind.reading_s(job.terms)
    else:
        usual_s = max(settings.stall_floor_s, settings.stall_factor * pace.inter_frame_p99_ms / 1000)
        usual_s = max(usual_s, GAPS * fleet.longest_gap_ms(lease.host_id, lease.model) / 1000)
        usual_s = max(usual_s, job.kind.gap_s(job.body))
    return min(usual_s, settings.lease_s)


def _usual_first_ms(core: Core, lease: Lease) -> float:
    """Return the usual 99th percentile of first frames at the model's proven hosts; 0: *lease*'s is one, or none is."""
    known = core.fleet.free_list(lease.model)
    own = known.all.get(lease.host_id) if known is not None else None
    if known is None or own is None or own.proven:
        return 0.0
    cached, now_s = core.state(UsualPace).first_ms, core.clock.monotonic_s()
    found = cached.get(lease.model)
    if found is None or found[0] < now_s:
        proven = (candidate for candidate in known.all.values() if candidate.proven)
        paces = [core.fleet.pace(one.host_id, lease.model) for one in islice(proven, USUAL_OF_MAX)]
        times = [pace.first_frame_p99_ms for pace in paces if pace.measured]
        if len(cached) >= MODELS_MAX:
            cached.clear()
        found = cached[lease.model] = (now_s + USUAL_S, median(times) if times else 0.0)
    return found[1]


def link_dropped(core: Core, host_id: bytes) -> None:
    """Note that a host's link dropped; if it is not back within `RELINK_BRIEF_S`, its jobs move to free hosts."""
    now_s = core.clock.monotonic_s()
    drops = core.state(Drops).at_s
    drops.append(now_s)
    while now_s - drops[0] > TOGETHER_S:
        drops.popleft()
    jobs = core.jobs.live.leases_of(host_id)
    for job in jobs:
        assert job.lease is not None
        job.lease.drop_link(now_s)
    if jobs:
        asyncio.get_running_loop().call_later(RELINK_BRIEF_S * 1.02, _look_again, core, host_id)


def _look_again(core: Core, host_id: bytes) -> None:
    now_s = core.clock.monotonic_s()
    for job in core.jobs.live.leases_of(host_id):
        lease = job.lease
        if lease is not None and not job.closing and (why := why_lost(core, job, lease, now_s)):
            core.background.spawn(revoke_from_silent_host(core, job, lease, why))


async def revoke_from_silent_host(core: Core, job: LiveJob, lease: Lease, why: str) -> None:
    """Revoke the lease of a silent host; if it can't be written now, the next sweep tries again.

    A host that this coordinator disconnected because it drains is not at fault, and may get the job where it is now.
    """
    sent_away = core.state(Shutdown).draining and lease.host_id not in core.channels
    try:
        await revoke_lease(core, job, lease, why, fault=Fault.COORDINATOR if sent_away else Fault.HOST)
    except Refusal as refusal:
        log.warning("job %s could not be taken from its host: %s", job.id.hex(), refusal)


def cause_is_here(silent: set[bytes], leased: set[bytes]) -> bool:
    """Tell whether so many hosts with leases are silent that the cause must be on this side."""
    return len(silent) >= TOGETHER_MIN and 2 * len(silent) > len(leased)


def _all_dropped(core: Core, now_s: float) -> bool:
    """Tell whether so many links dropped together that a balancer, the network or this machine is the cause."""
    together = sum([now_s - at_s <= TOGETHER_S for at_s in core.state(Drops).at_s])
    return together >= TOGETHER_MIN and together > len(core.channels)


def _somebody_free(core: Core, job: LiveJob) -> bool:
    """Tell whether revoking its lease would help the job: another host is free for it and may run it."""
    if job.kind.resume(job) is Resume.NEVER:
        return False
    spec = spec_now(core, job)
    assert job.lease is not None
    free = core.fleet.free_list(job.model)
    spec = replace(spec, deny=spec.deny | {job.lease.host_id})
    return free is not None and choose(spec, free, core.preference) is not None
