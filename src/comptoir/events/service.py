"""The service of the events room: the hub, and the stored events of each owner, which can be read from a cursor."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Self

from comptoir.events import store
from comptoir.events.errors import EventsForgotten
from comptoir.events.hub import EventHub
from comptoir.events.types import NUMBERED, FollowingBegan, NumberedEvent
from comptoir.kit.db import Database, Fetch, Tx

PAGE_MAX = 1_000
"""Most events of one page."""

READ_MAX = 100
"""Events that a follower reads from the table at once."""

HANDED_MAX = 100
"""Events passed to one follower before it has read them; it reads further ones from the table."""

LOOK_S = 10.0
"""How often an idle follower reads the table: the longest delay when another coordinator's notice is lost."""


class Events(EventHub):
    """The hub, and the numbered events of each owner."""

    def __init__(self, db: Database) -> None:
        super().__init__()
        self._db = db
        self._followers: dict[bytes, set[Follower]] = {}
        self._forgotten_up_to = b""
        """Position of the walk over old events."""
        for kind in NUMBERED:
            self.subscribe(kind, self._tell_followers)

    @staticmethod
    def insert_rows(tx: Tx, events: Sequence[NumberedEvent]) -> None:
        """Store *events* inside the command that makes them true, under the lock of the accounts that numbered them."""
        store.insert_rows(tx, events)

    @staticmethod
    def newest_number(fetch: Fetch, owner_id: bytes) -> int:
        """Return the number of the owner's newest event, as `newest`, within a snapshot."""
        return store.newest_number(fetch, owner_id)

    @staticmethod
    def next_events(fetch: Fetch, owner_id: bytes, *, after: int, limit: int) -> list[NumberedEvent]:
        """Return the owner's next events after number *after*, within a snapshot or command; no gap is looked for."""
        return store.next_events(fetch, owner_id, after=after, limit=limit)

    @staticmethod
    def number_before(fetch: Fetch, owner_id: bytes, *, at_ms: int) -> int:
        """Return the number of the owner's last event before *at_ms* (0: none that is kept), within a snapshot.

        Times follow the numbers but for the seconds by which the clocks of coordinators differ.
        """
        return store.number_before(fetch, owner_id, at_ms=at_ms)

    @staticmethod
    def ended_jobs(fetch: Fetch, owner_id: bytes, *, after: int) -> tuple[int, list[tuple[bytes, str]]] | None:
        """Return the owner's newest number, and id and state of each job that ended after event *after*.

        Within a snapshot. None: too many did (`store.ENDED_MAX`), or some of these events were deleted.
        """
        return store.ended_jobs(fetch, owner_id, after=after)

    async def after(self, owner_id: bytes, number: int, *, limit: int = 100) -> list[NumberedEvent]:
        """Return the owner's events with numbers above *number* (0: from the first on), at most *limit* (<= 1,000).

        Numbers ascend without gaps, and a number never becomes visible after a higher one: a reader that continues from
        the last number it has misses nothing.

        Raises:
            EventsForgotten: the next one is past retention; has the number of the first that is left.
        """
        events = await store.page(self._db, owner_id, after=number, limit=min(limit, PAGE_MAX))
        if events and events[0].number != number + 1:
            raise EventsForgotten(after=number, first_number=events[0].number)
        return events

    async def newest(self, owner_id: bytes) -> int:
        """Return the number of the owner's newest event: the cursor of a reader that wants only new events."""
        return await store.newest(self._db, owner_id)

    def follow(self, owner_id: bytes, *, after: int) -> "Follower":
        """Return a reader of the owner's events after *after*, from every coordinator; close it when done."""
        follower = Follower(self, owner_id, after)
        begins = not self._followers
        self._followers.setdefault(owner_id, set()).add(follower)
        if begins:
            self.publish(FollowingBegan())
        return follower

    @property
    def followed(self) -> int:
        """Number of owners that have a follower here."""
        return len(self._followers)

    def _tell_followers(self, event: NumberedEvent) -> None:
        for follower in self._followers.get(event.owner_id, ()):
            follower.hear(event)

    def heard_elsewhere(self, owner_id: bytes, number: int) -> None:
        """Another coordinator has written events of *owner_id* up to *number*: its followers read the table."""
        for follower in self._followers.get(owner_id, ()):
            if number > follower.ahead:
                follower.look()

    def poll_all(self) -> None:
        """Notices may have been lost: all followers read the table."""
        for followers in self._followers.values():
            for follower in followers:
                follower.look()

    def end(self, follower: "Follower") -> None:
        """Send *follower* nothing more."""
        followers = self._followers.get(follower.owner_id, set())
        followers.discard(follower)
        if not followers:
            self._followers.pop(follower.owner_id, None)

    async def forget(self, *, older_than_ms: int) -> tuple[int, bool]:
        """Delete some older events; return how many, and whether the walk over all owners is complete.

        An owner's newest event is kept, however old. Bounded: call it until it is complete, then again another day.
        """
        after = self._forgotten_up_to
        gone, up_to = await self._db.run(lambda tx: store.forget(tx, older_than_ms=older_than_ms, after=after))
        self._forgotten_up_to = up_to or b""
        return gone, up_to is None


class Follower:
    """Reads the numbered events of one owner, each once and in order, and waits for new ones.

    Events of this coordinator are passed to it; those of others, and missed ones, it reads from the table.
    """

    def __init__(self, events: Events, owner_id: bytes, number: int) -> None:
        self._events = events
        self.owner_id = owner_id
        self.number = number
        """Number of the last event read: a cursor to resume from."""
        self._page: deque[NumberedEvent] = deque()
        self._stirred = asyncio.Event()
        self._behind = True
        """Whether the table may have events that were not passed to it."""

    @property
    def ahead(self) -> int:
        """Number of the last event buffered here, or read."""
        return self._page[-1].number if self._page else self.number

    async def next(self) -> NumberedEvent:
        """Wait for the next event and return it; for one reader at a time.

        Raises:
            EventsForgotten: some were deleted before they were read.
            Unavailable: the database is unavailable. Either leaves the cursor where it was.
        """
        while not self._page:
            if self._behind:
                await self._read()
            else:
                await self._wait()
        event = self._page.popleft()
        self.number = event.number
        return event

    async def _read(self) -> None:
        self._behind = False
        try:
            found = await self._events.after(self.owner_id, self.ahead, limit=READ_MAX)
        except BaseException:
            self._behind = True
            raise
        self._behind = self._behind or len(found) == READ_MAX
        for event in found:
            # Some of them may have been passed over meanwhile.
            if event.number == self.ahead + 1:
                self._page.append(event)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                await self._stirred.wait()
            self._stirred.clear()
        except TimeoutError:
            self._behind = True

    def hear(self, event: NumberedEvent) -> None:
        """Accept an event that just happened here; never waits."""
        if event.number == self.ahead + 1 and len(self._page) < HANDED_MAX:
            self._page.append(event)
        elif event.number > self.ahead:
            self._behind = True
        self._stirred.set()

    def look(self) -> None:
        """Make the next read look into the table."""
        self._behind = True
        self._stirred.set()

    def close(self) -> None:
        """Receive nothing more."""
        self._events.end(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NumberedEvent:
        return await self.next()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
