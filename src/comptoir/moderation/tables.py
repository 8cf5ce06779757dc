"""Table of the moderation room; private to it."""

from comptoir.kit.db import Table

ACTS = Table(
    "acts",
    {
        "number": "int",
        "id": "id",
        "at_ms": "int",
        "operator_id": "id?",
        "operator": "text",
        "verb": "text",
        "subject": "text",
        "reason": "text",
    },
    key=("number",),
    unique=(("id",),),
    indexes=(("subject", "number"),),
)
"""The record: rows are only ever added. ``operator_id`` is NULL for what the coordinator decided by its settings."""

TABLES = (ACTS,)
