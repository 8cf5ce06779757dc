"""What is known about a coordinator."""

import msgspec


class Node(msgspec.Struct, frozen=True):
    """One coordinator process."""

    id: bytes
    slot: int
    """Small number that no other live coordinator has; determines its fee account."""
    version: str
    silent_ms: int
    """Time since its last heartbeat, by the database's clock."""
    connected: bool
    """Whether the database server has connections from it; true if that is unknown (SQLite, a pooler in between)."""
    left: bool
    """Whether it left in an orderly way: others may take over its jobs at once."""
