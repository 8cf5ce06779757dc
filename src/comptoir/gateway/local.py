"""Programs of this machine: who calls from it for itself, not for a page and not for somebody behind a proxy."""

from functools import lru_cache
from ipaddress import ip_address

from comptoir.kit.http import BROWSER_HEADERS, Request, host_name, is_loopback_name
from comptoir.kit.ratelimit import address_key

FORWARDING = (b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via")
"""Headers that a proxy adds: a request with one does not come from a local program, whatever its socket says."""

SPOKEN_FOR = BROWSER_HEADERS.union(FORWARDING)
"""These, and what browsers add: otherwise any page open on this machine could act as its owner."""

PEERS_MAX = 1024
"""Addresses whose parsed form is cached: callers send many requests, and parsing takes 3 µs."""


def is_local(request: Request) -> bool:
    """Tell whether a local program calls for itself: over loopback, not a proxy for others nor a browser for a page."""
    headers = request.scope["headers"]
    # Even an empty header came through a proxy.
    if not _is_loopback(request.peer) or any(name in SPOKEN_FOR for name, _ in headers):
        return False
    # Requests by DNS rebinding have neither header, because browsers take such a page for our own.
    host = request.header(b"host")
    return not host or is_loopback_name(host_name(host))


def counted_address(request: Request) -> str:
    """Return the address that what *request* asks for counts against (IPv6: its /64); empty: a program of this machine,
    whose address says nothing."""
    return "" if is_local(request) else address_key(request.address)


@lru_cache(PEERS_MAX)
def _is_loopback(peer: str) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
