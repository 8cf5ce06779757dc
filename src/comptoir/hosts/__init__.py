"""Hosts: who rents out a GPU, on what terms, and the current state of each.

Owns the table ``hosts`` and the in-memory `Fleet`. The fleet is authoritative for who is connected, who is free, how
fast and how trusted each host is; the table follows it with a delay (`Hosts.flush`).
Invariants: a slot is reserved and released exactly once; a host is in a model's free list exactly while it is active
and has a free slot; reputation comes from outcomes only.
Units: micro-dollars per million tokens, milliseconds, MiB; reputation 0..1. A host's earnings are in the ledger.
Knows `routing` (its door only), whose candidates and free lists the fleet maintains; nobody else.
"""

from comptoir.hosts.access import AccessRequest, ContainerAccess, address_of, container_access
from comptoir.hosts.catalog import Catalog
from comptoir.hosts.check import (
    SLOTS_MAX,
    check_host,
    check_offer,
    offers_of,
)
from comptoir.hosts.errors import NoFreeSlot, UnknownHost
from comptoir.hosts.fleet import Fleet
from comptoir.hosts.host import Host
from comptoir.hosts.quarantine import quarantine
from comptoir.hosts.remote import RemoteHosts
from comptoir.hosts.reputation import PROVEN
from comptoir.hosts.resting import RestingHosts
from comptoir.hosts.service import Hosts
from comptoir.hosts.store import insert_host
from comptoir.hosts.tables import TABLES
from comptoir.hosts.types import (
    ACTIVE,
    DONE,
    DRAINING,
    FAILED,
    INFRINTIA,
    LINK,
    LOST,
    OFFLINE,
    POLL,
    PUSH,
    SUSPENDED,
    ContainerSummary,
    HostRow,
    LastHeard,
    ModelSummary,
    NewHost,
    ReputationStory,
    StatusChange,
    StatusTelling,
    WorkSummary,
)

__all__ = [
    "ACTIVE",
    "DONE",
    "DRAINING",
    "FAILED",
    "INFRINTIA",
    "LINK",
    "LOST",
    "OFFLINE",
    "POLL",
    "PROVEN",
    "PUSH",
    "SLOTS_MAX",
    "SUSPENDED",
    "TABLES",
    "AccessRequest",
    "Catalog",
    "ContainerAccess",
    "ContainerSummary",
    "Fleet",
    "Host",
    "HostRow",
    "Hosts",
    "LastHeard",
    "ModelSummary",
    "NewHost",
    "NoFreeSlot",
    "RemoteHosts",
    "ReputationStory",
    "RestingHosts",
    "StatusChange",
    "StatusTelling",
    "UnknownHost",
    "WorkSummary",
    "address_of",
    "check_host",
    "check_offer",
    "container_access",
    "insert_host",
    "offers_of",
    "quarantine",
]
