"""Registering a polling or push host, in any dialect: its owner, and repeats under an Idempotency-Key."""

from comptoir.dispatch import Core
from comptoir.dispatch.onboard import NewcomerHost, add_host
from comptoir.gateway.idempotent import claim, once
from comptoir.hosts import NewHost, UnknownHost
from comptoir.identity import OwnerKind
from comptoir.kit.errors import InvalidField, NotAllowed
from comptoir.kit.http import Request

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


async def register_once(core: Core, request: Request, new: NewHost) -> NewcomerHost:
    """Register *new*; a repeat under the same Idempotency-Key gets the same host and key.

    Raises:
        InvalidField: a field is out of bounds, or a request without a credential has too short an Idempotency-Key.
        IdempotencyMismatch: the key was used with another request.
        NotAllowed, KeyTaken: see `add_host`.
    """
    key_header = request.header(b"idempotency-key")
    if request.principal is None and key_header and len(key_header) < OPEN_KEY_CHARS_MIN:
        raise InvalidField("Idempotency-Key", f"must be at least {OPEN_KEY_CHARS_MIN} characters without a credential")
    bound = await claim(core, request)

    async def make() -> NewcomerHost:
        return await add_host(
            core, new, host_id=bound.resource_id if bound else None, key_secret=bound.secret if bound else None
        )

    async def find() -> NewcomerHost | None:
        assert bound is not None
        try:
            # From the database: another coordinator may have registered it.
            await core.hosts.read(bound.resource_id)
        except UnknownHost:
            return None
        key = core.identity.new_key(OwnerKind.HOST, bound.resource_id, secret=bound.secret)
        return NewcomerHost(bound.resource_id, key.secret)

    return await once(core, bound, find=find, make=make)
