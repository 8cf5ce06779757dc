"""Admit: decide whether a caller may buy a chain of containers, before anything is reserved for it.

The checks, their order and their messages are those of Ritual's node, applied to what the hosts of this trading post
declare: a container exists if any host offers it, and admits a caller if any of those hosts does.
"""

from collections.abc import Sequence

from comptoir.containers.errors import ContainerRefused
from comptoir.dispatch import Core, State
from comptoir.hosts import ContainerAccess
from comptoir.kit.errors import TooManyRequests
from comptoir.kit.ratelimit import RateLimiter, address_key

RATES_MAX = 10_000
"""Limits that are counted at once; beyond it all counts start over."""


class ContainerRates(State):
    """Counters of the hosts' rate limits per caller and container."""

    def __init__(self, core: Core) -> None:
        self._clock = core.clock
        self._limiters: dict[tuple[str, int, float], RateLimiter] = {}

    def limiter(self, container: str, requests: int, period_s: float) -> RateLimiter:
        """Return the limiter of a container for *requests* in *period_s*."""
        key = container, requests, period_s
        found = self._limiters.get(key)
        if found is None:
            if len(self._limiters) >= RATES_MAX:
                self._limiters.clear()
            found = self._limiters[key] = RateLimiter(per_minute=requests, window_s=period_s, clock=self._clock)
        return found


def admit(core: Core, containers: Sequence[str], *, proof: bool, caller: str) -> None:
    """Check that a job may run *containers* for *caller* (an IP address).

    Raises, in the order they are checked:
        ModelQuarantined: one of them is in quarantine.
        ContainerRefused: no container is named, one is not on offer, the first is private, the last has no proofs
            though *proof* is requested, or one does not admit the caller.
        TooManyRequests: for one of them, the caller has used up the rate limit of every host that admits the caller.
    """
    if not containers:
        raise ContainerRefused("No containers specified")
    every = [core.fleet.catalog.access_of(name) for name in containers]
    for name, doors in zip(containers, every, strict=True):
        if not doors:
            quarantined = core.moderation.against_model(name)
            if quarantined is not None:
                raise quarantined
            raise ContainerRefused("Container not supported", {"container": name})
    if not any(door.external for door in every[0]):
        raise ContainerRefused("First container must be external", {"first_container": containers[0]})
    if proof and not any(door.proofs for door in every[-1]):
        raise ContainerRefused("Container does not generate proof", {"container": containers[-1]})
    for name, doors in zip(containers, every, strict=True):
        if not any(door.admits(caller) for door in doors):
            raise ContainerRefused("Container not allowed for address", {"container": name, "address": caller})
    for name, doors in zip(containers, every, strict=True):
        _count(core, name, [door for door in doors if door.admits(caller)], caller)


def _count(core: Core, name: str, doors: Sequence[ContainerAccess], caller: str) -> None:
    """Count one job of *caller* against the most generous of the hosts' rate limits."""
    if not all(door.rate_requests for door in doors):
        return
    best = max(doors, key=lambda door: door.rate_requests / door.rate_period_s)
    limiter = core.state(ContainerRates).limiter(name, best.rate_requests, best.rate_period_s)
    allowance = limiter.take(address_key(caller))
    if not allowance.allowed:
        limit = f"container {name!r} takes {best.rate_requests} jobs of one caller in {best.rate_period_s:g} s"
        again = f"come back in {allowance.retry_after_s:.2f} s"
        raise TooManyRequests(f"{limit}; {again}", retry_after_s=allowance.retry_after_s)
