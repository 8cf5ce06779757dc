"""Identity: users, their keys and the keys of hosts, and authentication.

Owns: ``users`` and ``access_keys``. Passwords are argon2id; keys are 256 random bits, shown once, stored as SHA-256.

Invariant: usernames and email addresses are unique without regard to case; a key has one owner for ever and is revoked,
never deleted; once a revocation returns, this coordinator refuses the key; the others do as soon as they are told
(`KeysRevoked`, `Identity.forget_keys`), and within `KEY_CACHE_S` otherwise.

Units: ids raw 16 bytes, times milliseconds since 1970 UTC. Knows: nobody. A host's id is opaque here.
"""

from comptoir.identity.errors import EmailTaken, UnknownAccessKey, UnknownUser, UsernameTaken
from comptoir.identity.passwords import Passwords
from comptoir.identity.service import KEY_CACHE_S, Identity
from comptoir.identity.tables import TABLES
from comptoir.identity.types import (
    Anonymous,
    Credentials,
    NewKey,
    NewUser,
    OwnerKind,
    Principal,
    Role,
    User,
)

__all__ = [
    "KEY_CACHE_S",
    "TABLES",
    "Anonymous",
    "Credentials",
    "EmailTaken",
    "Identity",
    "NewKey",
    "NewUser",
    "OwnerKind",
    "Passwords",
    "Principal",
    "Role",
    "UnknownAccessKey",
    "UnknownUser",
    "User",
    "UsernameTaken",
]
