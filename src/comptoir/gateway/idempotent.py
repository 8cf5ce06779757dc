"""Repeats: an Idempotency-Key makes the second request answer as the first did."""

from comptoir.dispatch import Core
from comptoir.idempotency import Claim
from comptoir.kit.http import Request


async def claim(core: Core, request: Request, *, scope: str = "") -> Claim | None:
    """Bind the request's ``Idempotency-Key``; None when it has none.

    Args:
        scope: sets callers without a credential apart, where they are not one and the same.

    Raises:
        InvalidField: the key is malformed.
        IdempotencyMismatch: the key was used with another request.
    """
    key = request.header(b"idempotency-key")
    if not key:
        return None
    owner = request.principal.id if request.principal is not None else None
    whole = b"\n".join((request.method.encode(), request.path.encode(), request.raw))
    if scope:
        whole = scope.encode() + b"\n" + whole
    return await core.idempotency.claim(owner_id=owner, key=key, request=whole)
