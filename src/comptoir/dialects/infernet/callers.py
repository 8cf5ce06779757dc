"""Callers: the owner of the key in a request, or without one the address that it came from.

Fields ``ip`` and ``id`` of a body are ignored.
"""

from functools import lru_cache

import msgspec

from comptoir.dialects.infernet.allowance import allow_anonymous
from comptoir.dispatch import Core
from comptoir.gateway import is_local
from comptoir.hosts import address_of
from comptoir.identity import OwnerKind
from comptoir.kit.errors import NotAllowed, NotAuthenticated
from comptoir.kit.http import Request
from comptoir.kit.ids import public
from comptoir.ledger import ANONYMOUS_CALLERS

ADDRESSES_MAX = 1024
"""Addresses whose parsed form is cached: callers send many requests, and parsing takes 3 µs."""


class Caller(msgspec.Struct, frozen=True):
    """A caller."""

    owner_id: bytes
    """The account that pays, and that owns the jobs."""
    address: str
    """IP address of the request; containers may admit only some addresses."""
    keyed: bool

    @property
    def of(self) -> str | None:
        """The address that jobs must have for this caller to see them; None: any, the key identifies the owner."""
        return None if self.keyed else self.address

    @property
    def scope(self) -> str:
        """The scope of statuses that this caller reports."""
        return public("usr", self.owner_id) if self.keyed else f"ip:{self.address}"


def caller_of(core: Core, request: Request) -> Caller:
    """Return the caller.

    Raises:
        NotAllowed: the key belongs to a host.
        NotAuthenticated: there is no key, and callers without one are not allowed (``infernet_anonymous``).
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
    """Return the caller, who is about to buy; the account of callers without a key is topped up.

    Raises:
        What `caller_of` raises. Unavailable: the database is unavailable.
    """
    caller = caller_of(core, request)
    if not caller.keyed:
        await allow_anonymous(core)
    return caller


@lru_cache(ADDRESSES_MAX)
def _spelled(address: str) -> str:
    """Return the canonical form of an address, as stored."""
    found = address_of(address)
    return str(found) if found is not None else address
