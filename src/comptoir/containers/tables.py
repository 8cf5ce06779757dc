"""The table of the package; private to it."""

from comptoir.kit.db import Table

RECORDED = Table(
    "recorded",
    {"scope": "text", "name": "text", "status": "text", "containers": "text", "updated_ms": "int"},
    key=("scope", "name"),
    indexes=(("scope", "updated_ms"), ("updated_ms",)),
)
TABLES = (RECORDED,)
