"""Moderation: what operators decided about hosts, users and model names, and what of it is in force.

Owns: table ``acts``.
Invariant: an act is written once, with its operator, subject and reason, and never changed or deleted; numbers ascend
without gaps in the order of the commits, so whoever has read up to a number misses nothing by reading on from there.
What is in force is the newest act about a subject that begins or lifts something, and nothing else.
Units: milliseconds since 1970 UTC; ids are 16 bytes. Knows: nobody. A subject is a public id or a name.
"""

from comptoir.moderation.errors import (
    AlreadyRetired,
    Barred,
    HostExpired,
    HostRetired,
    HostSuspended,
    LastOperator,
    ModelQuarantined,
    NothingToLift,
    UserSuspended,
)
from comptoir.moderation.service import Moderation, check_reason, lock, record
from comptoir.moderation.tables import TABLES
from comptoir.moderation.types import COORDINATOR, Act, Author, Decision, Verb

__all__ = [
    "COORDINATOR",
    "TABLES",
    "Act",
    "AlreadyRetired",
    "Author",
    "Barred",
    "Decision",
    "HostExpired",
    "HostRetired",
    "HostSuspended",
    "LastOperator",
    "ModelQuarantined",
    "Moderation",
    "NothingToLift",
    "UserSuspended",
    "Verb",
    "check_reason",
    "lock",
    "record",
]
