"""Events: what happened, to whom, when. One typed stream in place of callbacks between rooms.

Owns: the event types and the hub of one process.
Invariant: an event is published after what it tells of is true (durable, where it can be), and before the publisher does
anything else; a subscriber that fails or reads slowly costs nobody else an event, and never slows the publisher down.
Units: milliseconds; ids are 16 bytes. Knows: nobody.
"""

from comptoir.events.hub import WAITING_MAX, EventHub, Subscription
from comptoir.events.types import (
    DatabaseReturned,
    Draining,
    Event,
    HostChanged,
    HostFree,
    HostRegistered,
    HostResources,
    JobAccepted,
    JobAssigned,
    KeysRevoked,
    Missed,
    OfferChanged,
    OwnedEvent,
    RemoteHostOutcome,
    RemoteJobsWaiting,
)

__all__ = [
    "WAITING_MAX",
    "DatabaseReturned",
    "Draining",
    "Event",
    "EventHub",
    "HostChanged",
    "HostFree",
    "HostRegistered",
    "HostResources",
    "JobAccepted",
    "JobAssigned",
    "KeysRevoked",
    "Missed",
    "OfferChanged",
    "OwnedEvent",
    "RemoteHostOutcome",
    "RemoteJobsWaiting",
    "Subscription",
]
