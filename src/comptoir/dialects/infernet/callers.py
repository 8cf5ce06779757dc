"""Whose jobs: the owner of the key that came with a request, or without one the address that it came from.

What a body says of ``ip`` or ``id`` counts for nothing.
"""

from functools import lru_cache
from ipaddress import ip_address

import msgspec

from comptoir.dialects.infernet.allowance import allow_anonymous
from comptoir.dispatch import Core
from comptoir.hosts import address_of
from comptoir.identity import OwnerKind
from comptoir.kit.errors import NotAllowed, NotAuthenticated
from comptoir.kit.http import BROWSER_HEADERS, Request, host_name, is_loopback_name
from comptoir.kit.ids import public
from comptoir.ledger import ANONYMOUS_CALLERS

FORWARDING = (b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via")
"""Headers that a proxy adds: what comes with one is no program of this machine, whatever its socket says."""

SPOKEN_FOR = BROWSER_HEADERS.union(FORWARDING)
"""These, and what browsers add: otherwise any page open on this machine could buy at the operator's cost."""

ADDRESSES_MAX = 1024
"""Addresses whose reading is remembered: a caller asks more than once, and reading one takes 3 µs."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks."""

    owner_id: bytes
    """Who pays, and whose the jobs are."""
    address: str
    """Where the request came from; containers may be open to some addresses only."""
    keyed: bool

    @property
    def of(self) -> str | None:
        """The address that jobs have to be of for this caller to see them; None: any, the key says whose they are."""
        return None if self.keyed else self.address

    @property
    def scope(self) -> str:
        """Whose the statuses are that this caller reports."""
        return public("usr", self.owner_id) if self.keyed else f"ip:{self.address}"


def caller_of(core: Core, request: Request) -> Caller:
    """Return who asks.

    Raises:
        NotAllowed: the key is a host's.
        NotAuthenticated: no key came, and callers without one are not let in (``infernet_anonymous``).
    """
    address = _spelled(request.address)
    principal = request.principal
    if principal is not None:
        if principal.kind is not OwnerKind.USER:
            raise NotAllowed("this needs a user's key (ck_…); yours is a host's")
        return Caller(principal.id, address, keyed=True)
    allowed = core.settings.infernet_anonymous
    if allowed == "any" or (allowed == "loopback" and is_local(request)):
        return Caller(ANONYMOUS_CALLERS, address, keyed=False)
    raise NotAuthenticated("a key is needed here: send 'Authorization: Bearer <key>'")


async def buyer_of(core: Core, request: Request) -> Caller:
    """Return who asks and is going to buy; the account of callers without a key has its allowance then.

    Raises:
        What `caller_of` raises. Unavailable: the database is out of reach.
    """
    caller = caller_of(core, request)
    if not caller.keyed:
        await allow_anonymous(core)
    return caller


def is_local(request: Request) -> bool:
    """Tell whether a local program asks for itself: over loopback, not a proxy for others nor a browser for a page."""
    headers = request.scope["headers"]
    # A header that says nothing came through a proxy all the same.
    if not _is_loopback(request.peer) or any(name in SPOKEN_FOR for name, _ in headers):
        return False
    # A name that was pointed at this machine (DNS rebinding) brings neither: browsers take such a page for our own.
    host = request.header(b"host")
    return not host or is_loopback_name(host_name(host))


@lru_cache(ADDRESSES_MAX)
def _is_loopback(peer: str) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


@lru_cache(ADDRESSES_MAX)
def _spelled(address: str) -> str:
    """Spell an address the one way it is stored."""
    found = address_of(address)
    return str(found) if found is not None else address
