"""Idempotency keys: the same key from the same caller names the same resource, whatever happened in between.

Owns: table ``idempotency``.
Invariant: a (caller, key) pair is bound once, to one request (by fingerprint) and one resource id; the resource is
created under that id at most once, and the answer to a repeat is rendered from it.
Units: keys are 1 to 255 printable characters; ids 16 bytes. Knows: nobody.
"""

from comptoir.idempotency.service import Claim, Idempotency, IdempotencyMismatch
from comptoir.idempotency.tables import TABLES

__all__ = ["TABLES", "Claim", "Idempotency", "IdempotencyMismatch"]
