"""Expire hosts: retire those that nobody has heard for many days, as acts of the coordinator.

Anybody may register, and registering costs nothing: without this, names that never served anything stay in memory and
in every list for ever. Silence counts only while there was somebody to be heard by, so nobody is judged in the first
hour after a start, in which workers come back.
"""

import logging

from comptoir.dispatch.core import Core, State
from comptoir.dispatch.moderate import catch_up, retire_silent_host
from comptoir.hosts import OFFLINE, LastHeard
from comptoir.kit.ids import public

log = logging.getLogger(__name__)

DAY_MS = 24 * 3600 * 1000

WALK_AGAIN_S = 3600.0
"""Pause before each walk over all hosts; the first one is this long after the first sweep."""

HOSTS_A_BATCH = 500

BATCHES_MAX = 20
"""Batches of hosts looked at in one call: 10,000 hosts in ten seconds."""


class HostWalk(State):
    """Progress of the walk over all hosts."""

    def __init__(self, core: Core) -> None:
        self.after = b""
        """Id of the last host looked at."""
        self.again_s = core.clock.monotonic_s() + WALK_AGAIN_S
        """Monotonic time before which no new walk begins; set by the first sweep."""


async def retire_silent_hosts(core: Core) -> int:
    """Retire hosts that were not heard for ``silent_host_days``, or ``silent_newcomer_days``; return how many.

    Bounded: the next call continues. The second setting is for hosts that have neither an owner nor earnings. A
    suspended host is kept, and one that was resumed gets the days anew.

    Raises:
        Unavailable: the database is unavailable.
    """
    settings, walk = core.settings, core.state(HostWalk)
    if not (settings.silent_host_days or settings.silent_newcomer_days) or core.clock.monotonic_s() < walk.again_s:
        return 0
    retired = 0
    for _ in range(BATCHES_MAX):
        hosts = await core.hosts.last_heard(after=walk.after, limit=HOSTS_A_BATCH)
        for host, days in await _overdue(core, hosts):
            reason = f"not heard for {days} days"
            retired += await retire_silent_host(core, host.id, unless_heard_after_ms=host.at_ms, reason=reason)
        walk.after = hosts[-1].id if hosts else b""
        if len(hosts) < HOSTS_A_BATCH:
            walk.after, walk.again_s = b"", core.clock.monotonic_s() + WALK_AGAIN_S
            break
    if retired:
        log.info("retired %d hosts that were not heard for days", retired)
        await catch_up(core)
    return retired


async def _overdue(core: Core, hosts: list[LastHeard]) -> list[tuple[LastHeard, int]]:
    """Return those of *hosts* that are to be retired now, and the days of silence that they were allowed."""
    now_ms, settings = core.clock.now_ms(), core.settings
    shortest = min([days for days in (settings.silent_host_days, settings.silent_newcomer_days) if days])
    silent = [host for host in hosts if host.at_ms < now_ms - shortest * DAY_MS and not _is_here(core, host)]
    if not silent:
        return []
    earned = {
        owner
        for owner, account in (await core.ledger.accounts([host.id for host in silent])).items()
        if account.balance_uusd
    }
    found = []
    for host in silent:
        known = host.owner_id is not None or host.id in earned
        days = settings.silent_host_days if known else settings.silent_newcomer_days
        if days and host.at_ms < now_ms - days * DAY_MS:
            found.append((host, days))
    lifted = await _lifted(core, found, now_ms)
    return [(host, days) for host, days in found if host.id not in lifted]


def _is_here(core: Core, host: LastHeard) -> bool:
    """Tell whether a host is connected after all, or suspended."""
    here = core.fleet.find(host.id)
    return (here is not None and here.status != OFFLINE) or host.id in core.hosts.suspended


async def _lifted(core: Core, found: list[tuple[LastHeard, int]], now_ms: int) -> set[bytes]:
    """Return the hosts that were suspended, themselves or with their owner, within the days that they are allowed."""
    subjects: dict[str, list[bytes]] = {}
    for host, _ in found:
        subjects.setdefault(public("host", host.id), []).append(host.id)
        if host.owner_id is not None:
            subjects.setdefault(public("usr", host.owner_id), []).append(host.id)
    longest = max([days for _, days in found], default=0)
    lifted = await core.moderation.lifted_since(list(subjects), now_ms - longest * DAY_MS)
    return {host_id for subject in lifted for host_id in subjects[subject]}
