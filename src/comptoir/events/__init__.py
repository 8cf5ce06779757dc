"""Events: what happened, to whom, when. One typed stream in place of callbacks between rooms.

Owns: the event types, the hub of one process, table ``events``.
Invariant: an event is published after what it reports is true (durable, where it can be), and before the publisher does
anything else; a subscriber that fails or reads slowly costs no other one an event, and never slows the publisher down.
Numbered events are rows, written in the command that makes them true; an owner's numbers ascend without gaps, and none
appears before a number that was read. Numbers are assigned under the lock of the owner's account
(`ledger.Book.number`).
Units: milliseconds; ids are 16 bytes. Knows: nobody.
"""

from comptoir.events.errors import EventsForgotten
from comptoir.events.hub import EventHub
from comptoir.events.service import Events, Follower
from comptoir.events.tables import TABLES
from comptoir.events.types import (
    NUMBERED,
    ON_REQUEST,
    ActRecorded,
    CoordinatorDraining,
    CreditAdded,
    DatabaseReturned,
    Event,
    FollowingBegan,
    HostChanged,
    HostFree,
    HostHeard,
    HostOfferChanged,
    HostRegistered,
    HostResources,
    JobAccepted,
    JobAssigned,
    JobEnded,
    JobSent,
    KeysRevoked,
    LossEnded,
    Missed,
    NumberedEvent,
    ReceiptIssued,
    ReceiptsWanted,
    RemoteHostOutcome,
    RemoteJobsWaiting,
    UnknownEvent,
    WebhookPaused,
    request_bits,
)

__all__ = [
    "NUMBERED",
    "ON_REQUEST",
    "TABLES",
    "ActRecorded",
    "CoordinatorDraining",
    "CreditAdded",
    "DatabaseReturned",
    "Event",
    "EventHub",
    "Events",
    "EventsForgotten",
    "Follower",
    "FollowingBegan",
    "HostChanged",
    "HostFree",
    "HostHeard",
    "HostOfferChanged",
    "HostRegistered",
    "HostResources",
    "JobAccepted",
    "JobAssigned",
    "JobEnded",
    "JobSent",
    "KeysRevoked",
    "LossEnded",
    "Missed",
    "NumberedEvent",
    "ReceiptIssued",
    "ReceiptsWanted",
    "RemoteHostOutcome",
    "RemoteJobsWaiting",
    "UnknownEvent",
    "WebhookPaused",
    "request_bits",
]
