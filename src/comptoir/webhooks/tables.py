"""The table of webhooks; private to the room."""

from comptoir.kit.db import Table

WEBHOOKS = Table(
    "webhooks",
    {
        "id": "id",
        "owner_id": "id",
        "url": "text",
        "types": "text",
        "note": "text",
        "parallel": "int",
        "state": "text",
        "why": "text",
        "cursor": "int",
        "failing_since_ms": "int?",
        "secret": "bytes",
        "old_secret": "bytes?",
        "old_secret_until_ms": "int?",
        "created_ms": "int",
    },
    key=("id",),
    indexes=(("owner_id",),),
)
"""Webhooks. *types*: the tags of the events that it gets, with spaces between; empty: all. *cursor*: number of the last
event that was made a message for it or passed over. *secret*: sealed."""

TABLES = (WEBHOOKS,)
