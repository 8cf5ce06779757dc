"""Identity: users, their keys and the keys of hosts, authentication, and invitations to become one of them.

Owns: ``users``, ``access_keys``, ``invitations`` and ``signups``. Passwords are argon2id; keys are 256 random bits,
invitations 192, shown once, stored as SHA-256.

Invariant: usernames and email addresses are unique without regard to case; a key has one owner for ever and is revoked,
never deleted; once a revocation returns, this coordinator refuses the key; the others do as soon as they are told
(`KeysRevoked`, `Identity.forget_keys`), and within `KEY_CACHE_S` otherwise. An invitation is never used more
often than its maker said, over all coordinators.

Units: ids raw 16 bytes, times milliseconds since 1970 UTC. Knows: nobody. A host's id is opaque here.
"""

from comptoir.identity.errors import (
    EmailTaken,
    InvitationRefused,
    UnknownAccessKey,
    UnknownInvitation,
    UnknownUser,
    UsernameTaken,
)
from comptoir.identity.invitations import INVITATION_CHARS_MAX, invitation_rows, use_invitation
from comptoir.identity.passwords import Passwords
from comptoir.identity.service import KEY_CACHE_S, Identity
from comptoir.identity.signups import count_signup
from comptoir.identity.tables import TABLES
from comptoir.identity.types import (
    Anonymous,
    Credentials,
    Invitation,
    InvitedAs,
    NewInvitation,
    NewKey,
    NewUser,
    OwnerKind,
    Principal,
    Role,
    User,
)

__all__ = [
    "INVITATION_CHARS_MAX",
    "KEY_CACHE_S",
    "TABLES",
    "Anonymous",
    "Credentials",
    "EmailTaken",
    "Identity",
    "Invitation",
    "InvitationRefused",
    "InvitedAs",
    "NewInvitation",
    "NewKey",
    "NewUser",
    "OwnerKind",
    "Passwords",
    "Principal",
    "Role",
    "UnknownAccessKey",
    "UnknownInvitation",
    "UnknownUser",
    "User",
    "UsernameTaken",
    "count_signup",
    "invitation_rows",
    "use_invitation",
]
