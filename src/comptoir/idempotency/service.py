"""Bind Idempotency-Keys to resource ids, and derive secrets that are the same for a repeated request."""

import hashlib
import hmac

import msgspec

from comptoir.idempotency.tables import IDEMPOTENCY
from comptoir.kit.clock import Clock
from comptoir.kit.db import Database, Tx
from comptoir.kit.errors import InvalidField, Refusal
from comptoir.kit.ids import new_id

KEY_CHARS_MAX = 255
"""Longest accepted Idempotency-Key."""

NOBODY = bytes(16)
"""Owner of keys in requests without a credential; such keys are bound per request body as well."""


class IdempotencyMismatch(Refusal):
    """The key was used with another request."""

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was used with another request; take a new key")


class Claim(msgspec.Struct, frozen=True):
    """What a key is bound to."""

    resource_id: bytes
    first: bool
    """True for the request that bound the key; a repeat is answered from what exists."""
    bound_ms: int
    """When the key was bound."""
    secret: bytes
    """32 bytes unique to this (caller, key, request), so that a repeat returns the same shown-once keys."""


Row = tuple[bytes, str, bytes, bytes, int]
"""A key as stored: owner, name, fingerprint, resource id, time."""


def claim_verb(tx: Tx, rows: list[Row]) -> list[tuple[bytes, bytes, int] | Exception]:
    """Bind keys that are free; return for each the (fingerprint, resource id, time) that it is bound to.

    Inserted in one order: a coordinator waits for another that is binding the same key, and two must not wait for each
    other.
    """
    if tx.insert(IDEMPOTENCY, sorted(rows), ignore_conflicts=True) == len(rows):
        return [row[2:] for row in rows]
    sql = "SELECT fingerprint, resource_id, created_ms FROM idempotency WHERE owner_id = ? AND name = ?"
    found = [tx.fetch(sql, row[:2])[0] for row in rows]
    return [(bytes(fingerprint), bytes(resource), int(at_ms)) for fingerprint, resource, at_ms in found]


class Idempotency:
    """Keys and what they are bound to; deleted after ``idempotency_ttl_s`` (`forget`)."""

    def __init__(self, db: Database, clock: Clock, *, secret: bytes) -> None:
        self._db = db
        self._clock = clock
        self._secret = secret

    async def claim(self, *, owner_id: bytes | None, key: str, request: bytes) -> Claim:
        """Bind *key* to a new resource id, or return what it is bound to; durable when it returns.

        Args:
            owner_id: the caller; None without a credential.
            request: method, path and body; another request under the same key is refused.

        Raises:
            InvalidField: the key is empty, too long or has characters that are not printable ASCII.
            IdempotencyMismatch: the key was used with another request.
        """
        if not 1 <= len(key) <= KEY_CHARS_MAX or not key.isascii() or not key.isprintable():
            raise InvalidField("Idempotency-Key", f"must be 1 to {KEY_CHARS_MAX} printable ASCII characters")
        fingerprint = hashlib.sha256(request).digest()
        owner = owner_id or NOBODY
        name = key if owner_id else f"{key}:{fingerprint.hex()}"
        row = (owner, name, fingerprint, new_id(), self._clock.now_ms())
        bound, resource, bound_ms = await self._db.batch(claim_verb, row)
        if bound != fingerprint:
            raise IdempotencyMismatch
        secret = hmac.digest(self._secret, b"\0".join((b"idempotency", owner, name.encode(), fingerprint)), "sha256")
        return Claim(resource, resource == row[3], bound_ms, secret)

    async def bound_to(self, *, owner_id: bytes, key: str) -> bytes | None:
        """Return the resource id that *owner_id* bound *key* to, whether or not it exists; None: the key is free."""
        row = await self._db.fetch_point(IDEMPOTENCY, ("resource_id",), (owner_id, key))
        return bytes(row[0]) if row is not None else None

    async def forget(self, *, older_than_ms: int, limit: int = 1000) -> int:
        """Delete at most *limit* keys bound before *older_than_ms*, oldest first; return how many."""
        sql = (
            "DELETE FROM idempotency WHERE (owner_id, name) IN "
            "(SELECT owner_id, name FROM idempotency WHERE created_ms < ? ORDER BY created_ms LIMIT ?)"
        )
        return await self._db.run(lambda tx: tx.execute(sql, (older_than_ms, limit)))
