"""Admit: whether a chain of containers may be bought by whoever asks, before anything is set aside for it.

Checked as Ritual's node does, in its order and with its words, over what the hosts of this trading post say of their containers:
a container is there if any host offers it, and open to a caller if any of those hosts lets him in.
"""

from collections.abc import Sequence

from comptoir.dispatch.errors import ContainerRefused
from comptoir.dispatch.house import House
from comptoir.hosts import Host
from comptoir.kit.errors import TooManyRequests
from comptoir.kit.ratelimit import RateLimiter, address_key
from comptoir.link import ContainerCard
from comptoir.routing import Candidate, Door

RATES_MAX = 10_000
"""Limits that are counted at once; beyond it all counts begin anew."""


def admit(house: House, containers: Sequence[str], *, proof: bool, caller: str) -> None:
    """Do nothing if a job may run *containers* for *caller* (an address).

    Raises, in the order they are checked:
        ContainerRefused: no container is named, one is not on offer, the first is private, the last proves nothing though *proof*
            is asked for, or one is closed to the caller.
        TooManyRequests: every host that would let the caller in to one of them has had enough of him for now.
    """
    if not containers:
        raise ContainerRefused("No containers specified")
    offered = [house.fleet.with_container(name) for name in containers]
    for name, hosts in zip(containers, offered, strict=True):
        if not hosts:
            raise ContainerRefused("Container not supported", {"container": name})
    if not any(_door(host).external for host in offered[0]):
        raise ContainerRefused("First container must be external", {"first_container": containers[0]})
    if proof and not any(_door(host).proofs for host in offered[-1]):
        raise ContainerRefused("Container does not generate proof", {"container": containers[-1]})
    for name, hosts in zip(containers, offered, strict=True):
        if not any(_door(host).admits(caller) for host in hosts):
            raise ContainerRefused("Container not allowed for address", {"container": name, "address": caller})
    for name, hosts in zip(containers, offered, strict=True):
        _count(house, name, [host for host in hosts if _door(host).admits(caller)], caller)


def _door(candidate: Candidate) -> Door:
    assert candidate.door is not None, "a container has a door"
    return candidate.door


def _count(house: House, name: str, hosts: Sequence[Candidate], caller: str) -> None:
    """Count one job of *caller* against the most generous of the limits that *hosts* have of their own."""
    cards = [_card(house.fleet.get(host.host_id), name) for host in hosts]
    if any(card is None or not card.rate_requests for card in cards):
        return
    best = max([card for card in cards if card is not None], key=lambda card: card.rate_requests / card.rate_period_s)
    key = name, best.rate_requests, best.rate_period_s
    limiter = house.container_rates.get(key)
    if limiter is None:
        if len(house.container_rates) >= RATES_MAX:
            house.container_rates.clear()
        limiter = RateLimiter(per_minute=best.rate_requests, window_s=best.rate_period_s, clock=house.clock)
        house.container_rates[key] = limiter
    allowance = limiter.take(address_key(caller))
    if not allowance.allowed:
        limit = f"container {name!r} takes {best.rate_requests} jobs of one caller in {best.rate_period_s:g} s"
        again = f"come back in {allowance.retry_after_s:.2f} s"
        raise TooManyRequests(f"{limit}; {again}", retry_after_s=allowance.retry_after_s)


def _card(host: Host, name: str) -> ContainerCard | None:
    return next((offer.container for offer in host.row.models if offer.name == name), None)
