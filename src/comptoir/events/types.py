"""Everything that can happen, one frozen struct each; the tag is the name that rows and, later, the published stream carry."""

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


# -- hosts ---------------------------------------------------------------------------------------------------------


class HostRegistered(Event, frozen=True, gc=False, tag="host.registered"):
    """A host registered at this coordinator."""

    host_id: bytes
    at_ms: int


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


class OfferChanged(Event, frozen=True, gc=False, tag="market.offer"):
    """A host offers other models, prices or slots than before."""

    host_id: bytes
    at_ms: int


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


class Draining(Event, frozen=True, gc=False, tag="coordinator.draining"):
    """A stop began: what is open is finished, nothing new is taken."""

    open_answers: int
