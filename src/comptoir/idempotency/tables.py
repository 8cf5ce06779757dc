"""Table of the idempotency room; private to it."""

from comptoir.kit.db import Table

IDEMPOTENCY = Table(
    "idempotency",
    {"owner_id": "id", "name": "text", "fingerprint": "bytes", "resource_id": "id", "created_ms": "int"},
    key=("owner_id", "name"),
    indexes=(("created_ms",),),
)
TABLES = (IDEMPOTENCY,)
