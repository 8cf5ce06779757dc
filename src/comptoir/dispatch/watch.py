"""Watch: tell a host that is lost from one that is slow, by what it is known to be like.

A lease is taken away early only where another host is free to go on with the job: moving costs the buyer a pause of some
milliseconds and the host its pay for the rest, waiting costs nothing when nobody else could do it. Where most hosts fall silent at
the same moment it is not them but the line, or this process; then all get the long time.
"""

import asyncio
import logging
from collections import deque
from dataclasses import replace

from comptoir.dispatch.assign import revoke_lease, spec_of
from comptoir.dispatch.core import Core, State
from comptoir.dispatch.drain import Shutdown
from comptoir.jobs import Fault, Lease, LiveJob
from comptoir.kinds import Resume
from comptoir.kit.errors import Refusal
from comptoir.routing import choose

log = logging.getLogger(__name__)

RELINK_S = 10.0
"""How long a host whose link dropped may take to come back with its frames, before its leases are taken away."""

RELINK_BRIEF_S = 0.2
"""The same where another host can continue: a worker whose connection broke redials within 50 ms, a dead one never."""

TOGETHER_MIN = 4
"""As many hosts, and more than half of those concerned, that go at the same moment are not to blame."""

TOGETHER_S = 1.0
"""Links that drop within this time drop together."""

GAPS = 2.0
"""A pause of so many times the longest that was lately seen of the host is still believed."""


class Drops(State):
    """Links that dropped lately."""

    def __init__(self, core: Core) -> None:
        self.at_s: deque[float] = deque()
        """Monotonic times, oldest first."""


def why_lost(core: Core, job: LiveJob, lease: Lease, now_s: float) -> str:
    """Return why *lease* must be taken away now, or nothing."""
    settings = core.settings
    silent_s = now_s - lease.touched_s
    if silent_s > silence_max_s(core, job, lease):
        return f"no frame for {silent_s:.0f} s"
    if lease.host_id not in core.channels:
        if silent_s > RELINK_S:
            return "its link dropped and did not come back"
        gone_s = now_s - lease.dropped_s
        if lease.dropped_s and gone_s >= RELINK_BRIEF_S and not _all_dropped(core, now_s) and _somebody_free(core, job):
            return f"its link dropped and was not back after {gone_s:.1f} s"
    elif silent_s > settings.stall_floor_s and silent_s > patience_s(core, job, lease) and _somebody_free(core, job):
        return f"no frame for {silent_s:.1f} s, which is not normal for it"
    return ""


def silence_max_s(core: Core, job: LiveJob, lease: Lease) -> float:
    """Return the longest silence of a lease: ``lease_s``, or what is normal for its kind where that is longer."""
    if job.kind.steady:
        return core.settings.lease_s
    host = core.fleet.find(lease.host_id)
    offers = host.row.models if host is not None else ()
    offer = next((offer for offer in offers if offer.name == lease.model), None)
    return max(core.settings.lease_s, job.kind.silence_max_s(offer))


def patience_s(core: Core, job: LiveJob, lease: Lease) -> float:
    """Return how long the host of *lease* may be silent without being taken for lost, at most ``lease_s``."""
    settings, fleet = core.settings, core.fleet
    host = fleet.find(lease.host_id)
    if not job.kind.steady:
        return silence_max_s(core, job, lease)
    if host is None or not host.reach.sends_as_made:
        return settings.lease_s  # It sends as it likes, perhaps all at the end.
    pace = fleet.pace(lease.host_id, lease.model)
    if len(job.frames) == lease.first_frame:
        reading_s = job.kind.reading_s(job.terms)
        usual_s = max(settings.stall_first_floor_s, settings.stall_factor * pace.first_frame_p99_ms / 1000) + reading_s
    else:
        usual_s = max(settings.stall_floor_s, settings.stall_factor * pace.inter_frame_p99_ms / 1000)
        usual_s = max(usual_s, GAPS * fleet.longest_gap_ms(lease.host_id, lease.model) / 1000)
        usual_s = max(usual_s, job.kind.gap_s(job.body))
    return min(usual_s, settings.lease_s)


def link_dropped(core: Core, host_id: bytes) -> None:
    """Note that a host's link is gone; if it is not back in a moment its jobs go on where somebody is free for them."""
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
    """Take the lease of a silent host; what can't be written now is tried again by the next sweep.

    One that this coordinator sent away, as it drains, is not to blame for being gone, and may be given the job where it is now.
    """
    sent_away = core.state(Shutdown).draining and lease.host_id not in core.channels
    try:
        await revoke_lease(core, job, lease, why, fault=Fault.COORDINATOR if sent_away else Fault.HOST)
    except Refusal as refusal:
        log.warning("job %s could not be taken from its host: %s", job.id.hex(), refusal)


def cause_is_here(silent: set[bytes], leased: set[bytes]) -> bool:
    """Tell whether so many of the hosts under lease are silent that the cause must be on this side."""
    return len(silent) >= TOGETHER_MIN and 2 * len(silent) > len(leased)


def _all_dropped(core: Core, now_s: float) -> bool:
    """Tell whether so many links dropped together that it was not the hosts: a balancer, a network, this machine."""
    together = sum([now_s - at_s <= TOGETHER_S for at_s in core.state(Drops).at_s])
    return together >= TOGETHER_MIN and together > len(core.channels)


def _somebody_free(core: Core, job: LiveJob) -> bool:
    """Tell whether the job would gain by losing its host: another one is free for it, and may have it."""
    if job.kind.resume(job) is Resume.NEVER:
        return False
    spec = spec_of(job)
    assert job.lease is not None
    free = core.fleet.free_list(job.model)
    spec = replace(spec, deny=spec.deny | {job.lease.host_id})
    return free is not None and choose(spec, free, core.preference) is not None
