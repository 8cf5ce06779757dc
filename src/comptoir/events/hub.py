"""Publish and subscribe inside one process: one dict lookup per event, one call per handler, and no tasks."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Self, TypeVar

from comptoir.events.types import Event, Missed, OwnedEvent

log = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)

WAITING_MAX = 1_000
"""Events buffered for one reader, unless it asks for another bound; about 200 KiB."""

Handler = Callable[[Any], None]


class EventHub:
    """Passes each event to the subscribers of its type, in the order of subscription, before `publish` returns."""

    def __init__(self) -> None:
        self._handlers: dict[type[Event], tuple[Handler, ...]] = {}
        self._readers: dict[type[OwnedEvent], dict[bytes, tuple[EventSubscription, ...]]] = {}
        """Readers of the events of one owner, by type and owner."""

    def heard(self, kind: type[Event]) -> bool:
        """Tell whether *kind* has subscribers; if that is rare, ask before constructing an event."""
        return kind in self._handlers

    def publish(self, event: Event) -> None:
        """Pass *event* to its subscribers. One that fails is logged; the others still get the event."""
        for handler in self._handlers.get(type(event), ()):
            try:
                handler(event)
            except Exception:  # The publisher's edge: a failing subscriber must not undo what it published.
                log.exception("a subscriber failed on a %s", type(event).__name__)

    def subscribe(self, kind: type[E], handler: Callable[[E], None]) -> Callable[[], None]:
        """Call *handler* with every event of exactly *kind*; it must return at once. Returns how to unsubscribe."""
        self._handlers[kind] = (*self._handlers.get(kind, ()), handler)

        def end() -> None:
            left = list(self._handlers.get(kind, ()))
            if handler in left:
                left.remove(handler)
            if left:
                self._handlers[kind] = tuple(left)
            else:
                self._handlers.pop(kind, None)

        return end

    def listen(self, *kinds: type[Event], waiting_max: int = WAITING_MAX) -> "EventSubscription":
        """Return a reader of every event of *kinds*; close it when done."""
        reader = EventSubscription(waiting_max)
        reader.ends = [self.subscribe(kind, reader.put) for kind in kinds]
        return reader

    def listen_for(
        self, owner_id: bytes, *kinds: type[OwnedEvent], waiting_max: int = WAITING_MAX
    ) -> "EventSubscription":
        """Return a reader of one owner's events; however many owners have readers, an event costs one lookup."""
        reader = EventSubscription(waiting_max)
        reader.ends = [self._listen_for(owner_id, kind, reader) for kind in kinds]
        return reader

    def _listen_for(self, owner_id: bytes, kind: type[OwnedEvent], reader: "EventSubscription") -> Callable[[], None]:
        owners = self._readers.get(kind)
        if owners is None:
            owners = self._readers[kind] = {}
            self.subscribe(kind, self._to_owner)
        owners[owner_id] = (*owners.get(owner_id, ()), reader)

        def end() -> None:
            left = tuple([one for one in owners.get(owner_id, ()) if one is not reader])
            if left:
                owners[owner_id] = left
            else:
                owners.pop(owner_id, None)

        return end

    def _to_owner(self, event: OwnedEvent) -> None:
        for reader in self._readers[type(event)].get(event.owner_id, ()):
            reader.put(event)


class EventSubscription:
    """A bounded buffer of events for one reader. A slow one loses the oldest, and gets `Missed` with their number."""

    def __init__(self, waiting_max: int) -> None:
        assert waiting_max > 0
        self._waiting: deque[Event] = deque(maxlen=waiting_max)
        self._missed = 0
        self._waiter: asyncio.Future[None] | None = None
        self.ends: list[Callable[[], None]] = []
        """Functions that end its subscriptions."""

    def put(self, event: Event) -> None:
        """Buffer an event; never waits."""
        waiting = self._waiting
        self._missed += len(waiting) == waiting.maxlen
        waiting.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> Event:
        """Wait for the next event and return it; for one reader at a time."""
        while not self._waiting:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._missed:
            count, self._missed = self._missed, 0
            return Missed(count)
        return self._waiting.popleft()

    def close(self) -> None:
        """Receive nothing more; buffered events can still be read."""
        for end in self.ends:
            end()
        self.ends.clear()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self.next()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
