"""Access: whom a container lets in (`routing.AccessPolicy`). A host says it, routing keeps to it.

What a buyer claims of himself opens nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

Network = IPv4Network | IPv6Network


class AccessRequest(NamedTuple):
    """What an access rule has to know of a job (`routing.Spec.entry`)."""

    caller: str = ""
    """Address of whoever asked; one that is none (empty) is in no network."""
    enters: bool = False
    """A chain of containers begins with this one."""
    proof: bool = False
    """The container has to prove its result."""


NOBODY = AccessRequest()
"""A job that says nothing of itself."""


@dataclass(frozen=True, slots=True)
class ContainerAccess:
    """What one host asks of the jobs that one of its containers gets."""

    external: bool = True
    """Whether a job may begin here."""
    proofs: bool = False
    """Whether the container proves what it computed."""
    networks: tuple[Network, ...] = ()
    """Where callers may be; empty: anywhere."""
    rate_requests: int = 0
    """Most jobs of one caller within *rate_period_s*; 0: no limit."""
    rate_period_s: float = 60.0

    def refuses(self, entry: object | None) -> str | None:
        """Say why a job may not come in; None: it may."""
        job = entry if isinstance(entry, AccessRequest) else NOBODY
        if job.enters and not self.external:
            return "no job may begin with it"
        if job.proof and not self.proofs:
            return "proves nothing"
        return None if self.admits(job.caller) else "not open to this address"

    def admits(self, caller: str) -> bool:
        """Tell whether callers from this address may use the container."""
        if not self.networks:
            return True
        address = address_of(caller)
        return address is not None and any(address in network for network in self.networks)


def container_access(
    *, external: bool, proofs: bool, networks: Iterable[str], rate_requests: int = 0, rate_period_s: float = 60.0
) -> ContainerAccess:
    """Return the access rule for networks as they are written (CIDR, host bits allowed).

    Raises:
        ValueError: one of them is no network.
    """
    read = tuple([ip_network(text, strict=False) for text in networks])
    return ContainerAccess(external, proofs, read, rate_requests, rate_period_s)


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address that *text* spells, an IPv4 one where it was mapped into IPv6; None: it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
