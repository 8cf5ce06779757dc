"""Access: which callers and jobs a container admits (`routing.AccessPolicy`), declared by hosts, enforced by routing.

Nothing in it depends on what buyers claim about themselves.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

Network = IPv4Network | IPv6Network


class AccessRequest(NamedTuple):
    """What an access rule needs to know about a job (`routing.Spec.entry`)."""

    caller: str = ""
    """The caller's IP address; one that is not an address (empty) is in no network."""
    enters: bool = False
    """Whether a chain of containers begins with this one."""
    proof: bool = False
    """Whether the container has to prove its result."""


NOBODY = AccessRequest()
"""The request of a job about which nothing is known."""


@dataclass(frozen=True, slots=True)
class ContainerAccess:
    """The access rule of one host for one of its containers."""

    external: bool = True
    """Whether a job may begin here."""
    proofs: bool = False
    """Whether the container proves what it computed."""
    networks: tuple[Network, ...] = ()
    """Networks that callers may come from; empty: any."""
    rate_requests: int = 0
    """Most jobs of one caller within *rate_period_s*; 0: no limit."""
    rate_period_s: float = 60.0

    def refuses(self, entry: object | None) -> str | None:
        """Return why a job is not admitted; None: it is."""
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
    """Return the access rule for networks in text form (CIDR, host bits allowed).

    Raises:
        ValueError: one of them is not a network.
    """
    read = tuple([ip_network(text, strict=False) for text in networks])
    return ContainerAccess(external, proofs, read, rate_requests, rate_period_s)


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """Parse *text* as an address, unwrapping IPv4 mapped into IPv6; None: it is not an address."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
