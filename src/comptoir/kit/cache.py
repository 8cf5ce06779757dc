"""A bounded memory of looked-up values: constant time, least recently used go first, and no entry outlives its time."""

from collections.abc import Callable
from typing import Generic, TypeVar

from comptoir.kit.clock import Clock

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """At most *entries_max* values, each for at most *ttl_s* seconds.

    Two generations instead of a linked list: the young one fills to half the bound, then becomes the old one, and what
    is asked for there moves back. A hit in the young one is a single dict lookup.
    """

    __slots__ = ("_half", "_monotonic_s", "_old", "_ttl_s", "_young")

    def __init__(self, *, entries_max: int, ttl_s: float, clock: Clock) -> None:
        self._half = max(1, entries_max // 2)
        self._ttl_s = ttl_s
        self._monotonic_s = clock.monotonic_s
        self._young: dict[K, tuple[float, V]] = {}
        self._old: dict[K, tuple[float, V]] = {}

    def get(self, key: K) -> V | None:
        """Return the value of *key*, or ``None`` when it is not known or its time is up."""
        entry = self._young.get(key)
        if entry is None:
            entry = self._old.pop(key, None)
            if entry is None:
                return None
            self._add(key, entry)
        if entry[0] <= self._monotonic_s():
            self.discard(key)
            return None
        return entry[1]

    def put(self, key: K, value: V) -> None:
        """Remember *value*; it lives *ttl_s* from now."""
        self._add(key, (self._monotonic_s() + self._ttl_s, value))

    def discard(self, key: K) -> None:
        """Forget *key*."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def discard_where(self, matches: Callable[[V], bool]) -> None:
        """Forget every value that *matches*; visits all of them, so it is for what happens rarely."""
        for held in (self._young, self._old):
            for key in [key for key, (_, value) in held.items() if matches(value)]:
                del held[key]

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old = {}, {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def _add(self, key: K, entry: tuple[float, V]) -> None:
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = entry
