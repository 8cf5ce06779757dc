"""The coordinators of one trading post that a worker may call, and which one it calls now.

Any of them will do. A worker begins with a random one, so that many workers spread over all, and switches to the next
when that one fails; link, registration and pulse share the choice.
"""

import random
import threading
from collections.abc import Callable, Sequence

ADDRESSES_MAX = 64
"""Most addresses of one trading post."""


def split_addresses(text: str) -> list[str]:
    """Split comma-separated addresses, without trailing slashes and duplicates; at most `ADDRESSES_MAX`."""
    found = (part.strip().rstrip("/") for part in text.split(","))
    return list(dict.fromkeys(address for address in found if address))[:ADDRESSES_MAX]


class Addresses:
    """One or more addresses of the same trading post, called in turn; safe to use from any thread."""

    def __init__(self, urls: Sequence[str], *, pick: Callable[[int], int] | None = None) -> None:
        """*pick* chooses the index of the first one, given their number; default: `random.randrange`."""
        assert urls, "a worker needs an address"
        self.all = tuple(urls)
        self._at = (pick or random.randrange)(len(self.all))
        self._tried = 0
        self._lock = threading.Lock()

    @property
    def current(self) -> str:
        """Return the address to call now."""
        return self.all[self._at]

    def failed(self, *, lived: bool = False) -> bool:
        """Switch to the next address, because the current one failed; return whether to call it at once.

        Every address is called once without waiting; after a whole round of failures the caller waits before the next.
        *lived*: the current one had worked before it failed, so a new round begins.
        """
        with self._lock:
            self._at = (self._at + 1) % len(self.all)
            self._tried = 1 if lived else self._tried + 1
            if self._tried < len(self.all):
                return True
            self._tried = 0
            return lived

    def in_turn(self) -> list[str]:
        """Return all addresses, the current one first."""
        at = self._at
        return [*self.all[at:], *self.all[:at]]
