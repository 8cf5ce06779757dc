"""Table of the nodes room; private to it."""

from comptoir.kit.db import Table

NODES = Table(
    "nodes",
    {"id": "id", "slot": "int", "version": "text", "started_ms": "int", "seen_ms": "int", "left_ms": "int?"},
    key=("id",),
)
TABLES = (NODES,)
