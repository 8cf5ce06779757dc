"""Turns of the event loop, shared: how much is made in one turn for large bodies and for readers, before everybody else
is heard.

What is made for one reader is small (`bounds.PIECE_BYTES`), but thousands may be ready at once, and everything they
are made in one turn makes all others wait. Whoever makes something says before it how large it is; beyond a turn's
bytes he waits for a later turn. Those who wait are let in by address, one each in turn, so that one address with many
connections delays the others by one piece.
"""

import asyncio
from collections import deque

TURN_BYTES = 256 << 10
"""Bytes that are made in one turn, all readers and bodies together: some 3 ms. What alone is larger has a turn for
itself."""

PIECE_COST_BYTES = 1 << 10
"""What a piece costs beside its bytes: an event of one token takes about as long as 1 KiB more of a large one."""


class Turns:
    """The turns of one event loop, and who waits for one."""

    __slots__ = ("_ending", "_half", "_most", "_spent", "_waiting")

    def __init__(self, bytes_max: int = TURN_BYTES) -> None:
        self._most = bytes_max
        self._half = bytes_max // 2
        self._spent = 0
        """Bytes made since somebody last counted from nothing: in this turn, or, as long as they are few, in several
        (so that a turn in which little is made costs nothing)."""
        self._ending = False
        """What ends this turn is scheduled."""
        self._waiting: dict[str, deque[tuple[int, asyncio.Future[None]]]] = {}
        """By address, in the order in which they are let in."""

    @property
    def waiting(self) -> int:
        """How many wait for a turn."""
        return sum(map(len, self._waiting.values()))

    def spend(self, key: str, size: int) -> "asyncio.Future[None] | None":
        """Count *size* bytes that are about to be made for the address *key*; return what to wait for before, if
        anything."""
        size += PIECE_COST_BYTES
        before = self._spent
        if before + size <= self._half:
            self._spent = before + size
            return None
        loop = asyncio.get_running_loop()
        if not self._ending:
            self._ending = True
            loop.call_soon(self._next)
        if not self._waiting and (before + size <= self._most or before <= self._half):
            self._spent = before + size
            return None
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(key, deque()).append((size, turn))
        return turn

    def _next(self) -> None:
        """Begin a turn: let in whom it has room for."""
        self._ending, self._spent = False, 0
        waiting = self._waiting
        while waiting:
            key = next(iter(waiting))
            size, turn = waiting[key][0]
            if self._spent and self._spent + size > self._most:
                break
            mine = waiting.pop(key)
            mine.popleft()
            if mine:
                waiting[key] = mine  # Behind the others.
            if not turn.done():
                self._spent += size
                turn.set_result(None)
        if waiting:
            self._ending = True
            asyncio.get_running_loop().call_soon(self._next)
