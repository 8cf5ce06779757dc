"""The table of intents; private to the room."""

from comptoir.kit.db import Table

OUTBOX = Table(
    "outbox",
    {
        "id": "id",
        "kind": "text",
        "key": "text",
        "owner_id": "id",
        "lane": "id",
        "number": "int",
        "payload": "bytes",
        "state": "text",
        "tried": "int",
        "attempts": "int",
        "attempts_end": "int",
        "due_ms": "int?",
        "node_id": "id?",
        "created_ms": "int",
        "give_up_ms": "int",
        "over_ms": "int?",
        "history": "text",
    },
    key=("id",),
    indexes=(("lane", "created_ms"),),
    partial=(
        (("due_ms",), "state = 'waiting'"),
        (("owner_id", "lane", "tried"), "state = 'waiting'"),
        (("over_ms",), "over_ms IS NOT NULL"),
    ),
)
"""Intents. *id*: hash of kind and key. *due_ms*: when it may be claimed next; while *node_id* has it claimed, when that
claim lapses; NULL: parked, or over. *attempts* counts claims, and the write that reports on one names its number.
*history*: the last attempts, as JSON."""

TABLES = (OUTBOX,)
