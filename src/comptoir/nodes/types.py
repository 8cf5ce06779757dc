"""What is known of a coordinator."""

import msgspec


class Node(msgspec.Struct, frozen=True):
    """One coordinator process."""

    id: bytes
    slot: int
    """Small number that no other coordinator here has; names its fee account."""
    version: str
    silent_ms: int
    """Since its last sign of life, by the database's clock."""
    connected: bool
    """Whether the database server sees its connections; true where that can't be told (SQLite, a pooler)."""
    left: bool
    """It said goodbye: whatever is still its own may be taken at once."""
