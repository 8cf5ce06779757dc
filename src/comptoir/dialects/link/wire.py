"""Bodies of the link's plain HTTP calls."""

from typing import Annotated

import msgspec

from comptoir.gateway import Hex, Machine, RegisteredOffer


class RegisterBody(Machine, kw_only=True):
    """Body of ``POST /link/register``."""

    models: Annotated[list[RegisteredOffer], msgspec.Meta(max_length=256)]
    public_key: Hex
    """Ed25519 verify key of the worker, hex; receipts are verified with it."""
    software: Annotated[str, msgspec.Meta(max_length=200)] = ""


class LinkRegistered(msgspec.Struct):
    """Answer of ``POST /link/register``."""

    host_id: str
    api_key: str
    """Shown once."""
    pulse_s: float
    bond_uusd: int = 0
    """What was moved from the owner's account into a bond for this host."""
