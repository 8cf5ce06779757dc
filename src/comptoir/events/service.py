"""The events' door: the hub, and beside it the numbered events of each owner, which can be read again from a cursor."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Self

from comptoir.events import store
from comptoir.events.errors import EventsForgotten
from comptoir.events.hub import EventHub
from comptoir.events.types import NUMBERED, FollowingBegan, NumberedEvent
from comptoir.kit.db import Database, Tx

PAGE_MAX = 1_000
"""Most events of one page."""

READ_MAX = 100
"""Events that a follower reads at once."""

HANDED_MAX = 100
"""Events that are handed to one follower before it has read them; further ones it reads from the table."""

LOOK_S = 10.0
"""How often a follower that hears nothing looks into the table all the same: the longest delay that lost news cost."""


class Events(EventHub):
    """What happens, and what happened to each owner."""

    def __init__(self, db: Database) -> None:
        super().__init__()
        self._db = db
        self._followers: dict[bytes, set[Follower]] = {}
        self._forgotten_up_to = b""
        """Where the walk over old events stands."""
        for kind in NUMBERED:
            self.subscribe(kind, self._tell_followers)

    @staticmethod
    def insert_rows(tx: Tx, events: Sequence[NumberedEvent]) -> None:
        """Store *events* inside the command that makes them true, under the lock of the accounts that numbered them."""
        store.insert_rows(tx, events)

    async def after(self, owner_id: bytes, number: int, *, limit: int = 100) -> list[NumberedEvent]:
        """Return the owner's events with numbers above *number* (0: all), at most *limit* (<= 1,000) of them.

        Numbers ascend without a gap. One that is not here yet can't come behind one that is: a reader that goes on from
        the last number it has misses nothing.

        Raises:
            EventsForgotten: the next one is past retention; says which is the first that is left.
        """
        events = await store.page(self._db, owner_id, after=number, limit=min(limit, PAGE_MAX))
        if events and events[0].number != number + 1:
            raise EventsForgotten(after=number, first_number=events[0].number)
        return events

    async def newest(self, owner_id: bytes) -> int:
        """Return the number of the owner's newest event: where a reader begins that wants only what is to come."""
        return await store.newest(self._db, owner_id)

    def follow(self, owner_id: bytes, *, after: int) -> "Follower":
        """Return a reader of the owner's events from *after* on, wherever they happen; close it when done."""
        follower = Follower(self, owner_id, after)
        begins = not self._followers
        self._followers.setdefault(owner_id, set()).add(follower)
        if begins:
            self.publish(FollowingBegan())
        return follower

    @property
    def followed(self) -> int:
        """How many owners have a follower here."""
        return len(self._followers)

    def _tell_followers(self, event: NumberedEvent) -> None:
        for follower in self._followers.get(event.owner_id, ()):
            follower.hear(event)

    def heard_elsewhere(self, owner_id: bytes, number: int) -> None:
        """Another coordinator has written events of *owner_id* up to *number*; followers look into the table."""
        for follower in self._followers.get(owner_id, ()):
            if number > follower.ahead:
                follower.look()

    def poll_all(self) -> None:
        """News may have been lost: all followers look into the table."""
        for followers in self._followers.values():
            for follower in followers:
                follower.look()

    def end(self, follower: "Follower") -> None:
        """Tell *follower* nothing more."""
        followers = self._followers.get(follower.owner_id, set())
        followers.discard(follower)
        if not followers:
            self._followers.pop(follower.owner_id, None)

    async def forget(self, *, older_than_ms: int) -> tuple[int, bool]:
        """Delete some of the events that are older; return how many, and whether the walk over all owners is through.

        An owner's newest event stays, however old. Bounded: call it until it is through, and then again another day.
        """
        after = self._forgotten_up_to
        gone, up_to = await self._db.run(lambda tx: store.forget(tx, older_than_ms=older_than_ms, after=after))
        self._forgotten_up_to = up_to or b""
        return gone, up_to is None


class Follower:
    """Reads the numbered events of one owner, each once and in order, and waits for those to come.

    What happens here it is handed; what happens at another coordinator, or was missed, it reads from the table.
    """

    def __init__(self, events: Events, owner_id: bytes, number: int) -> None:
        self._events = events
        self.owner_id = owner_id
        self.number = number
        """Of the last event read; a reader that remembers it can begin again after it."""
        self._page: deque[NumberedEvent] = deque()
        self._stirred = asyncio.Event()
        self._behind = True
        """Whether the table may hold more than was handed over."""

    @property
    def ahead(self) -> int:
        """Number of the last event that is here, read or not."""
        return self._page[-1].number if self._page else self.number

    async def next(self) -> NumberedEvent:
        """Wait for the next event and return it; for one reader at a time.

        Raises:
            EventsForgotten: some were forgotten before they were read.
            Unavailable: the database is out of reach. Either leaves the reader where it was.
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
            # Some of them may have been handed over meanwhile.
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
        """Take an event that just happened here; never waits."""
        if event.number == self.ahead + 1 and len(self._page) < HANDED_MAX:
            self._page.append(event)
        elif event.number > self.ahead:
            self._behind = True
        self._stirred.set()

    def look(self) -> None:
        """Have the table looked at."""
        self._behind = True
        self._stirred.set()

    def close(self) -> None:
        """Hear nothing more."""
        self._events.end(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NumberedEvent:
        return await self.next()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
