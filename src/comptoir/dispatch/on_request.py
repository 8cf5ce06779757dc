"""Events on request (`events.ON_REQUEST`): rows, with numbers, only for owners whose webhooks ask for them.

Who asks for what is a column of the owner's account, written under its lock by the command that makes or deletes a
webhook. A command that has locked the account for its own sake, as a submit has, sees it there: no event is missed,
whichever coordinator writes it, and owners who ask for nothing pay for the test of one number. A command that does not
need the account locks it only for owners who were seen to ask.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from weakref import WeakSet

import msgspec

from comptoir.dispatch.core import Core, State
from comptoir.events import ON_REQUEST, Events, HostChanged, JobAccepted, JobAssigned, NumberedEvent
from comptoir.hosts import StatusChange, StatusTelling
from comptoir.jobs import LiveJob, NewJob, Start
from comptoir.kit.clock import Clock
from comptoir.kit.db import Tx
from comptoir.ledger import Book, Ledger, account_rows

ACCEPTED, ASSIGNED, CHANGED = (ON_REQUEST[kind] for kind in (JobAccepted, JobAssigned, HostChanged))


class SubmitEvents(msgspec.Struct, frozen=True):
    """What a submit wrote for an owner who asks for events on request."""

    asked: int
    """Bits of the types asked for."""
    events: list[NumberedEvent]


class AssignedStart(msgspec.Struct, frozen=True):
    """Outcome of a lease whose buyer asked to be told: what `assign.start_verb` returns otherwise, and the event."""

    covered: bool | None
    event: JobAssigned


class ToldOfStarts(State):
    """Unfinished jobs here whose owners asked for `JobAssigned` when they were accepted."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._jobs: WeakSet[LiveJob] = WeakSet()

    def note(self, job: LiveJob, asked: int) -> None:
        """Note what the owner of *job* asks for."""
        if asked & ASSIGNED:
            self._jobs.add(job)

    def buyer_of(self, job: LiveJob) -> bytes:
        """Return whom to tell of the next lease on *job*; empty: nobody."""
        return job.owner_id if self._jobs and job in self._jobs else b""

    def publish(self, written: bool | AssignedStart | None) -> bool | None:
        """Publish the event of a lease that was written, if it has one; return the rest of the outcome."""
        if isinstance(written, AssignedStart):
            self._core.events.publish(written.event)
            return written.covered
        return written


def number_submit(book: Book, job: NewJob, start: Start | None) -> SubmitEvents | None:
    """Number what the owner of a job asks for of its acceptance and first lease; the caller inserts the rows.

    None: the owner asks for nothing. The account is in *book*.
    """
    owner_id = job.owner_id
    asked = book.asked_events(owner_id)
    if not asked:
        return None
    events: list[NumberedEvent] = []
    if asked & ACCEPTED:
        events.append(JobAccepted(owner_id, job.created_ms, book.number(owner_id), job.id, job.model))
    if asked & ASSIGNED and start is not None:
        events.append(_assigned(book, owner_id, start))
    return SubmitEvents(asked, events)


def _assigned(book: Book, owner_id: bytes, start: Start) -> JobAssigned:
    return JobAssigned(
        owner_id, start.at_ms, book.number(owner_id), start.job_id, start.attempt_id, start.host_id
    )  # fmt: skip


def tell_starts(tx: Tx, items: Sequence[Start], outcomes: list[bool | AssignedStart | Exception | None]) -> None:
    """Write `JobAssigned` for the leases that were written and whose buyers still ask; put it into *outcomes*."""
    told = [
        (place, item, outcome)
        for place, (item, outcome) in enumerate(zip(items, outcomes, strict=True))
        if item.buyer_id and not isinstance(outcome, Exception | AssignedStart)
    ]
    book = Book.load(tx, [item.buyer_id for _, item, _ in told])
    events = list[JobAssigned]()
    for place, item, covered in told:
        if book.asked_events(item.buyer_id) & ASSIGNED:
            event = _assigned(book, item.buyer_id, item)
            events.append(event)
            outcomes[place] = AssignedStart(covered, event)
    if events:
        book.apply(tx)
        Events.insert_rows(tx, events)


def status_telling(ledger: Ledger, clock: Clock) -> Callable[[Collection[bytes]], Awaitable[StatusTelling | None]]:
    """Return how the hosts room tells owners who ask of their hosts' status (`hosts.Hosts`)."""

    async def of_owners(owner_ids: Collection[bytes]) -> StatusTelling | None:
        found = await ledger.asked_events(owner_ids)
        asking = sorted(owner_id for owner_id, asked in found.items() if asked & CHANGED)
        return (
            StatusTelling([account_rows(asking)], partial(_number_changes, asking, clock.now_ms())) if asking else None
        )

    return of_owners


def _number_changes(asking: Sequence[bytes], at_ms: int, tx: Tx, changes: Sequence[StatusChange]) -> list[HostChanged]:
    book = Book.load(tx, asking)
    events = [
        HostChanged(each.owner_id, at_ms, book.number(each.owner_id), each.host_id, each.status)
        for each in changes
        if each.owner_id in asking and book.asked_events(each.owner_id) & CHANGED
    ]
    if events:
        book.apply(tx)
        Events.insert_rows(tx, events)
    return events
