"""Identity: people, their keys and the keys of hosts, and who is asking.

Owns: ``users`` and ``access_keys``. Passwords are argon2id; keys are 256 random bits, shown once, kept as SHA-256.

Invariant: usernames and email addresses are unique without regard to case; a key has one owner for ever and is revoked,
never deleted; once a revocation returns, the key opens nothing on this coordinator; on others as soon as they hear of it
(`KeysRevoked`, `Identity.forget_keys`), and within `KEY_CACHE_S` if they don't.

Units: ids raw 16 bytes, times milliseconds since 1970 UTC. Knows: nobody. A host's id is only a number here.
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
