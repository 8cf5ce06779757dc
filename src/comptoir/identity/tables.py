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

TABLES = (USERS, ACCESS_KEYS)
