"""Everything that can happen, one frozen struct each; the tag is its name in rows and, later, in streams."""

from collections.abc import Mapping

import msgspec


class Event(msgspec.Struct, frozen=True, tag_field="type", gc=False):
    """Something that happened; told once, in the order in which it happened here."""


class OwnedEvent(Event, frozen=True, gc=False):
    """Something that happened to what one owner (a user, or a host's account) has; his readers may hear it."""

    owner_id: bytes
    at_ms: int


class Missed(Event, frozen=True, gc=False, tag="missed"):
    """A reader was too slow: this many events that came before the next one are gone for it."""

    count: int


class NumberedEvent(OwnedEvent, frozen=True, gc=False):
    """An event that no reader must miss: a row, written in the command that makes it true, numbered per owner.

    A subclass begins with the id of what it is about; further fields come at the end, with a default. It stands in `NUMBERED`.
    """

    number: int


# -- jobs ----------------------------------------------------------------------------------------------------------


class JobAccepted(OwnedEvent, frozen=True, gc=False, tag="job.accepted"):
    """A job is durable, its hold is set aside."""

    job_id: bytes
    model: str


class JobAssigned(OwnedEvent, frozen=True, gc=False, tag="job.assigned"):
    """A job went down the line to a host, the first one or a later one."""

    job_id: bytes
    lease_id: bytes
    host_id: bytes


class JobEnded(NumberedEvent, frozen=True, gc=False, tag="job.ended"):
    """A job is over and settled."""

    job_id: bytes
    """Its receipt has the same id."""
    state: str
    """``completed``, ``failed``, ``cancelled`` or ``expired``."""
    cost_uusd: int
    """What the buyer paid; the rest of the hold is free again."""
    error_code: str = ""
    """Empty when it went well."""


# -- hosts ---------------------------------------------------------------------------------------------------------


class HostRegistered(Event, frozen=True, gc=False, tag="host.registered"):
    """A host registered at this coordinator."""

    host_id: bytes
    at_ms: int


class HostHeard(Event, frozen=True, gc=False, tag="host.heard"):
    """A host that has no line here spoke for itself by a request; whoever can reach it from here opens one."""

    host_id: bytes


class HostChanged(Event, frozen=True, gc=False, tag="host.changed"):
    """A host's status changed, as this coordinator sees it."""

    host_id: bytes
    at_ms: int
    status: str
    """``active``, ``draining`` or ``offline``."""


class HostFree(Event, frozen=True, gc=False, tag="host.free"):
    """A host here can take a job more than before; waiting jobs may go there."""

    host_id: bytes


class HostResources(Event, frozen=True, tag="host.resources"):
    """A host here told what its containers say of themselves."""

    host_id: bytes
    of: Mapping[str, bytes]
    """JSON by container; replaces all that was told of this host before."""


class RemoteHostOutcome(Event, frozen=True, gc=False, tag="host.outcome"):
    """An attempt ended here for a host that another coordinator has by now; that one keeps its reputation."""

    host_id: bytes
    node_id: bytes
    """The coordinator that has it."""
    outcome: str
    tokens: int


# -- the market ----------------------------------------------------------------------------------------------------


class HostOfferChanged(Event, frozen=True, gc=False, tag="market.offer"):
    """A host offers other models, prices or slots than before."""

    host_id: bytes
    at_ms: int


# -- receipts and money --------------------------------------------------------------------------------------------


class ReceiptIssued(OwnedEvent, frozen=True, gc=False, tag="receipt.issued"):
    """A receipt is signed and stored; the job's end is told beside it."""

    job_id: bytes
    """And the receipt's id."""


class CreditAdded(NumberedEvent, frozen=True, gc=False, tag="money.added"):
    """Somebody can spend more: what was paid in, or given by the operator."""

    transfer_id: bytes
    amount_uusd: int
    kind: str
    """Of the transfer: ``deposit`` or ``signup``."""


# -- this coordinator ----------------------------------------------------------------------------------------------


class KeysRevoked(Event, frozen=True, tag="keys.revoked"):
    """Keys were revoked here, durably; others have to forget them."""

    digests: list[bytes]
    """SHA-256 of each."""


class DatabaseReturned(Event, frozen=True, gc=False, tag="database.returned"):
    """The database is back, and what had waited for it is written."""


class RemoteJobsWaiting(Event, frozen=True, gc=False, tag="jobs.waiting"):
    """Another coordinator has jobs waiting for a host."""

    node_id: bytes


class CoordinatorDraining(Event, frozen=True, gc=False, tag="coordinator.draining"):
    """A stop began: what is open is finished, nothing new is taken."""

    open_answers: int


class FollowingBegan(Event, frozen=True, gc=False, tag="events.followed"):
    """Somebody here follows an owner's numbered events; before, nobody did."""


# -- numbered events -----------------------------------------------------------------------------------------------


class UnknownEvent(NumberedEvent, frozen=True, gc=False, tag="unknown"):
    """A row that a newer coordinator wrote, of a type that this version does not know."""

    subject_id: bytes
    kind: str
    """The type."""
    data: str
    """JSON."""


NUMBERED: tuple[type[NumberedEvent], ...] = (JobEnded, CreditAdded)
"""Every type that is stored."""
