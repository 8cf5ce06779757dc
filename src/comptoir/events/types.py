"""All events, one frozen struct each; the tag is the name in rows and, later, in the published stream."""

from collections.abc import Collection, Mapping

import msgspec


class Event(msgspec.Struct, frozen=True, tag_field="type", gc=False):
    """Something that happened; published once, in the order in which it happened here."""


class OwnedEvent(Event, frozen=True, gc=False):
    """Something that happened to what one owner (a user, or a host's account) has; the owner's readers may see it."""

    owner_id: bytes
    at_ms: int


class Missed(Event, frozen=True, gc=False, tag="missed"):
    """A reader was too slow: so many events before the next one were dropped for it."""

    count: int


class NumberedEvent(OwnedEvent, frozen=True, gc=False):
    """An event that no reader may miss: a row, written in the command that makes it true, numbered 1, 2, 3, … by owner.

    A subclass begins with its subject's id; new fields are added at the end, with a default. It is listed in
    `NUMBERED`.
    """

    number: int

    @property
    def about(self) -> bytes:
        """Id of its subject."""
        found: bytes = getattr(self, self.__struct_fields__[SUBJECT])
        return found


SUBJECT = len(NumberedEvent.__struct_fields__)
"""Place of the subject's id among the fields of a numbered event."""


# -- jobs ----------------------------------------------------------------------------------------------------------


class JobAccepted(NumberedEvent, frozen=True, gc=False, tag="job.accepted"):
    """A job is durable and its hold is open. On request (`ON_REQUEST`)."""

    job_id: bytes
    model: str


class JobAssigned(NumberedEvent, frozen=True, gc=False, tag="job.assigned"):
    """A host, the first or a later one, got the lease on a job. On request (`ON_REQUEST`)."""

    job_id: bytes
    lease_id: bytes
    host_id: bytes


class JobSent(Event, frozen=True, gc=False, tag="job.sent"):
    """A leased job was sent to its host."""

    job_id: bytes
    lease_id: bytes


class JobEnded(NumberedEvent, frozen=True, gc=False, tag="job.ended"):
    """A job is over and settled."""

    job_id: bytes
    """Its receipt has the same id."""
    state: str
    """``completed``, ``failed``, ``cancelled`` or ``expired``."""
    cost_uusd: int
    """What the buyer paid; the rest of the hold is released."""
    error_code: str = ""
    """Empty on success."""


# -- hosts ---------------------------------------------------------------------------------------------------------


class HostRegistered(Event, frozen=True, gc=False, tag="host.registered"):
    """A host registered at this coordinator."""

    host_id: bytes
    at_ms: int


class HostHeard(Event, frozen=True, gc=False, tag="host.heard"):
    """A host without a channel here sent a request; a transport that can reach it from here opens a channel."""

    host_id: bytes


class HostChanged(NumberedEvent, frozen=True, gc=False, tag="host.changed"):
    """The stored status of an owner's host is another than before. On request (`ON_REQUEST`)."""

    host_id: bytes
    status: str
    """``active``, ``draining`` or ``offline``."""


class HostFree(Event, frozen=True, gc=False, tag="host.free"):
    """A host here has a free slot more than before; waiting jobs may go there."""

    host_id: bytes


class HostResources(Event, frozen=True, tag="host.resources"):
    """A host here reported what its containers say about themselves."""

    host_id: bytes
    of: Mapping[str, bytes]
    """JSON by container; replaces this host's report before."""


class RemoteHostOutcome(Event, frozen=True, gc=False, tag="host.outcome"):
    """An attempt ended here for a host that is by now connected to another coordinator, which keeps its reputation."""

    host_id: bytes
    node_id: bytes
    """That coordinator."""
    outcome: str
    tokens: int
    buyer: bytes
    """Owner of the job."""
    paid_uusd: int


# -- the market ----------------------------------------------------------------------------------------------------


class HostOfferChanged(Event, frozen=True, gc=False, tag="market.offer"):
    """A host offers other models, prices or slots than before."""

    host_id: bytes
    at_ms: int


# -- receipts and money --------------------------------------------------------------------------------------------


class ReceiptIssued(OwnedEvent, frozen=True, gc=False, tag="receipt.issued"):
    """A receipt is signed and stored; `JobEnded` is published beside it."""

    job_id: bytes
    """Also the receipt's id."""


class CreditAdded(NumberedEvent, frozen=True, gc=False, tag="money.added"):
    """A user has more credit: a deposit, credit granted by the operator, or a bond that came back."""

    transfer_id: bytes
    amount_uusd: int
    kind: str
    """Kind of the transfer: ``deposit``, ``signup`` or ``bond_back``."""


# -- webhooks ------------------------------------------------------------------------------------------------------


class WebhookPaused(NumberedEvent, frozen=True, gc=False, tag="webhook.paused"):
    """Nothing is sent to a webhook any more, because it failed for too long or said that it is gone."""

    webhook_id: bytes
    why: str


# -- this coordinator ----------------------------------------------------------------------------------------------


class KeysRevoked(Event, frozen=True, tag="keys.revoked"):
    """Keys were revoked here, durably; other coordinators have to drop them from their caches."""

    digests: list[bytes]
    """SHA-256 of each."""


class ActRecorded(Event, frozen=True, gc=False, tag="act.recorded"):
    """An act was recorded here, durably; every coordinator has to read the record, and put it in force."""

    number: int


class DatabaseReturned(Event, frozen=True, gc=False, tag="database.returned"):
    """The database is available again, and what had waited for it is written."""


class ReceiptsWanted(Event, frozen=True, gc=False, tag="receipts.wanted"):
    """The database lost receipts: workers that keep them are asked to hand them in."""


class LossEnded(Event, frozen=True, gc=False, tag="loss.ended"):
    """Commits were missing from the database, and are not any more or have been accepted as lost."""


class RemoteJobsWaiting(Event, frozen=True, gc=False, tag="jobs.waiting"):
    """Another coordinator has jobs waiting for a host."""

    node_id: bytes


class CoordinatorDraining(Event, frozen=True, gc=False, tag="coordinator.draining"):
    """Shutdown began: open answers are finished, nothing new is accepted."""

    open_answers: int


class FollowingBegan(Event, frozen=True, gc=False, tag="events.followed"):
    """An owner's numbered events got their first follower here."""


# -- numbered events -----------------------------------------------------------------------------------------------


class UnknownEvent(NumberedEvent, frozen=True, gc=False, tag="unknown"):
    """A row that a newer coordinator wrote, of a type that this version does not know."""

    subject_id: bytes
    kind: str
    """The type."""
    data: str
    """JSON."""


ON_REQUEST: Mapping[type[NumberedEvent], int] = {JobAccepted: 1, JobAssigned: 2, HostChanged: 4}
"""Types that exist only for owners who ask for them: for others they get no number, no row, and are not published. By
type, the bit of the account's column that says so; bits are stored and never change."""


def request_bits(tags: Collection[str]) -> int:
    """Return the bits of those of *tags* that are events on request; of all, if there are none."""
    return sum(bit for kind, bit in ON_REQUEST.items() if not tags or str(kind.__struct_config__.tag) in tags)


NUMBERED: tuple[type[NumberedEvent], ...] = (JobEnded, CreditAdded, WebhookPaused, *ON_REQUEST)
"""Every type that is stored."""
