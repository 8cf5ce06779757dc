"""Doors: whom a container lets in. A host says it, routing keeps to it; what a buyer claims of himself opens nothing."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Door:
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

    def opens(self, *, caller: str, enters: bool, proof: bool) -> bool:
        """Tell whether a job may come in.

        Args:
            caller: the caller's address; one that is none (empty) is in no network.
            enters: it would begin here.
            proof: its result has to be proved here.
        """
        return (self.external or not enters) and (self.proofs or not proof) and self.admits(caller)

    def admits(self, caller: str) -> bool:
        """Tell whether callers from this address may use the container."""
        if not self.networks:
            return True
        address = address_of(caller)
        return address is not None and any(address in network for network in self.networks)


def door(
    *, external: bool, proofs: bool, networks: Iterable[str], rate_requests: int = 0, rate_period_s: float = 60.0
) -> Door:  # fmt: skip
    """Return a door for networks as they are written (CIDR, host bits allowed).

    Raises:
        ValueError: one of them is no network.
    """
    read = tuple([ip_network(text, strict=False) for text in networks])
    return Door(external, proofs, read, rate_requests, rate_period_s)


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address that *text* spells, an IPv4 one where it was mapped into IPv6; None: it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
