"""Numbers on messages, by which a receiver knows a repeat from a loss.

A sender numbers its messages for each receiver. A numbering begins at a multiple of `NUMBERING`; the second one of the
same process begins at twice that, and so on. So a receiver knows a first message when it sees one, and a numbering that
was forgotten and began anew is never taken for old messages.
"""

import msgspec

from comptoir.kit.bus.bus import PEERS_MAX

NUMBERING = 1 << 40
"""Room of one numbering: 11 years at 3,200 messages a second."""


class BusEntry(msgspec.Struct, array_like=True, gc=False):
    """What travels: consecutive messages of one sender to one receiver."""

    sender: bytes
    """Node id; empty for an entry that says nothing."""
    first: int
    """Number of the first message; without messages, the number that the next one will have."""
    messages: list[bytes]


class Numberings:
    """Gives out the first number of each numbering that a sender begins."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = 0

    def begin(self) -> int:
        """Return the first number of a new numbering."""
        self._begun += 1
        return self._begun * NUMBERING


class SeenNumbers:
    """What a receiver has seen of each sender."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next: dict[bytes, int] = {}

    def senders(self) -> list[bytes]:
        """Return everybody of whom something was seen."""
        return list(self._next)

    def look(self, sender: bytes, first: int, count: int) -> tuple[int, bool]:
        """Check *count* messages from *first* on; return how many are repeats, and whether earlier ones were lost."""
        expected = self._next.get(sender)
        if expected is None:
            if len(self._next) >= PEERS_MAX:
                del self._next[next(iter(self._next))]
            self._next[sender] = first + count
            return 0, first % NUMBERING != 0
        if first >= expected:
            self._next[sender] = first + count
            return 0, first > expected
        known = min(expected - first, count)
        if known < count:
            self._next[sender] = first + count
        return known, False
