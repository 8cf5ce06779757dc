"""Tables of the identity room."""

from comptoir.kit.db import Table

USERS = Table(
    "users",
    {
        "id": "id",
        "username": "text",
        "username_folded": "text",
        "email": "text?",
        "email_folded": "text?",
        "password_hash": "text?",
        "role": "text",
        "created_ms": "int",
    },
    key=("id",),
    unique=(("username_folded",), ("email_folded",)),
)
"""Users. The folded columns are lower case: ``Ann`` and ``ann`` must not be two users."""

ACCESS_KEYS = Table(
    "access_keys",
    {"digest": "bytes", "id": "id", "owner_kind": "text", "owner_id": "id", "created_ms": "int", "revoked_ms": "int?"},
    key=("digest",),
    unique=(("id",),),
    indexes=(("owner_id",),),
)
"""Keys of users and hosts: the SHA-256 of the key, never the key. 256 random bits need no slow hash."""

INVITATIONS = Table(
    "invitations",
    {
        "digest": "bytes",
        "id": "id",
        "invited_as": "text",
        "uses": "int",
        "uses_max": "int",
        "credit_uusd": "int?",
        "note": "text",
        "made_by": "id",
        "created_ms": "int",
        "expires_ms": "int",
        "revoked_ms": "int?",
    },
    key=("digest",),
    unique=(("id",),),
)
"""Invitations to sign up or to register a host: the SHA-256 of each, never the invitation. ``made_by`` is the
operator's user id; ``credit_uusd`` NULL gives a new user what everybody gets."""

SIGNUPS = Table("signups", {"day": "int", "address": "text", "credited": "int"}, key=("day", "address"))
"""How many new users of an address (IPv6: a /64) got sign-up credit on a day, counted from 1970 in UTC. Deleted when
the day is over."""

TABLES = (USERS, ACCESS_KEYS, INVITATIONS, SIGNUPS)
