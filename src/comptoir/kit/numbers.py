"""The integer that strangers may send: one that every database and every peer can hold."""

from typing import Annotated

from msgspec import Meta

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""An integer of 64 bits. JSON's have no end, SQLite and PostgreSQL refuse what is longer; what a field means has
narrower bounds of its own."""
