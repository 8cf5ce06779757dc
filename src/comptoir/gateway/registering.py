"""Registering a host, in any dialect: its owner, what is asked for, and repeats under an Idempotency-Key."""

from dataclasses import replace

from comptoir.dispatch import Core
from comptoir.dispatch.onboard import NewcomerHost, add_host
from comptoir.gateway.idempotent import claim, once
from comptoir.hosts import NewHost, UnknownHost
from comptoir.idempotency import Claim
from comptoir.identity import OwnerKind
from comptoir.kit.errors import InvalidField, NotAllowed
from comptoir.kit.http import Request
from comptoir.kit.ratelimit import address_block
from comptoir.ledger import bonds_of

OPEN_KEY_CHARS_MIN = 16
"""Shortest Idempotency-Key of a registration without credential: anybody who knows it and the body gets the host's
key."""


def owner_of(request: Request) -> bytes | None:
    """Return the owner of the new host: the user whose key came with the request; None: no owner.

    Raises:
        NotAllowed: the key belongs to a host.
    """
    principal = request.principal
    if principal is not None and principal.kind is not OwnerKind.USER:
        raise NotAllowed("a host can't register a host; send your own key, or none")
    return principal.id if principal is not None else None


async def register(core: Core, request: Request, new: NewHost, *, invitation: str | None) -> NewcomerHost:
    """Register *new* for the caller; an operator brings in whom it likes.

    Raises:
        InvalidField, BondNotCovered, InvitationRefused, NotAllowed, KeyTaken: see `add_host`.
    """
    return await _register(core, request, new, invitation=invitation, bound=None)


async def register_once(core: Core, request: Request, new: NewHost, *, invitation: str | None) -> NewcomerHost:
    """Register *new*; a repeat under the same Idempotency-Key gets the same host and key, and uses up nothing more.

    Raises:
        InvalidField: a field is out of bounds, or a request without a credential has too short an Idempotency-Key.
        IdempotencyMismatch: the key was used with another request.
        BondNotCovered, InvitationRefused, NotAllowed, KeyTaken: see `add_host`.
    """
    key_header = request.header(b"idempotency-key")
    if request.principal is None and key_header and len(key_header) < OPEN_KEY_CHARS_MIN:
        raise InvalidField("Idempotency-Key", f"must be at least {OPEN_KEY_CHARS_MIN} characters without a credential")
    bound = await claim(core, request)

    async def make() -> NewcomerHost:
        return await _register(core, request, new, invitation=invitation, bound=bound)

    async def find() -> NewcomerHost | None:
        assert bound is not None
        try:
            # From the database: another coordinator may have registered it.
            await core.hosts.read(bound.resource_id)
        except UnknownHost:
            return None
        key = core.identity.new_key(OwnerKind.HOST, bound.resource_id, secret=bound.secret)
        bond = (await bonds_of(core.db, [bound.resource_id])).get(bound.resource_id)
        return NewcomerHost(bound.resource_id, key.secret, bond.amount_uusd if bond is not None else 0)

    return await once(core, bound, find=find, make=make)


async def _register(
    core: Core, request: Request, new: NewHost, *, invitation: str | None, bound: Claim | None
) -> NewcomerHost:
    principal = request.principal
    return await add_host(
        core,
        replace(new, address_block=address_block(request.address)),
        host_id=bound.resource_id if bound else None,
        key_secret=bound.secret if bound else None,
        invitation=invitation,
        by_operator=principal is not None and principal.is_admin,
    )
