"""The table of numbered events; private to the room."""

from comptoir.kit.db import Table

EVENTS = Table(
    "events",
    {"owner_id": "id", "number": "int", "at_ms": "int", "type": "text", "subject_id": "id", "data": "text"},
    key=("owner_id", "number"),
)
TABLES = (EVENTS,)
