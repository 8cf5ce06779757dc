"""What several nodes tell each other so that limits hold over all of them: requests taken, and things held.

Requests are told as what was taken since the last time, and charged where they are heard of: a message that is lost
makes the limit looser by what it told. Things held (say, unfinished jobs of a buyer) are told as absolute counts of
what changed, so that a loss is mended by `Shares.whole`; a dead node's are dropped.

Units: counts. Bounded: a message has at most `SHARED_KEYS_MAX` keys of each limiter and `HELD_KEYS_MAX` counts. Knows:
    nobody.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from comptoir.kit.ratelimit import RateLimiter

HELD_KEYS_MAX = 10_000
"""Counts of one message, some 300 kB; the rest goes with the next."""


class NodeShare(msgspec.Struct, array_like=True, gc=False):
    """What one node tells the others."""

    taken: dict[str, dict[Any, int]]
    """By limiter: requests taken since the last message, by key (text or bytes)."""
    held: dict[bytes, int]
    """How many each key holds at the sender now, of keys whose count changed; 0: none any more."""
    whole: bool = False
    """Whether *held* stands for everything: what it does not name is 0."""


class InFlight:
    """How many of something each key holds: here, and at other nodes."""

    __slots__ = ("_changed", "_elsewhere", "_here", "_others")

    def __init__(self) -> None:
        self._here: dict[bytes, int] = {}
        self._elsewhere: dict[bytes, dict[bytes, int]] = {}
        """By node, then by key."""
        self._others: dict[bytes, int] = {}
        """Sums over the other nodes, by key."""
        self._changed: dict[bytes, None] | None = None
        """Keys whose count here changed since it was told; None: nobody asked yet."""

    def enter(self, key: bytes) -> None:
        """Count one more here."""
        self._here[key] = self._here.get(key, 0) + 1
        if self._changed is not None:
            self._changed[key] = None

    def leave(self, key: bytes) -> None:
        """Count one less here; there is one."""
        left = self._here[key] - 1
        if left:
            self._here[key] = left
        else:
            del self._here[key]
        if self._changed is not None:
            self._changed[key] = None

    def counts(self) -> dict[bytes, int]:
        """Return how many each key holds at this node."""
        return dict(self._here)

    def here(self, key: bytes) -> int:
        """Return how many *key* holds at this node."""
        return self._here.get(key, 0)

    def total(self, key: bytes) -> int:
        """Return how many *key* holds at all nodes, as far as they were heard of."""
        return self._here.get(key, 0) + self._others.get(key, 0)

    def drain_changed(self) -> dict[bytes, int]:
        """Return at most `HELD_KEYS_MAX` counts that changed since they were told; the first call tells of all."""
        if self._changed is None:
            self._changed = dict.fromkeys(self._here)
        changed, keys = self._changed, []
        for key in changed:
            keys.append(key)
            if len(keys) == HELD_KEYS_MAX:
                break
        for key in keys:
            del changed[key]
        return {key: self._here.get(key, 0) for key in keys}

    def whole(self) -> list[dict[bytes, int]]:
        """Return every count here, in pieces of at most `HELD_KEYS_MAX`; one empty piece when there is none."""
        items = list(self._here.items())
        return [dict(items[at : at + HELD_KEYS_MAX]) for at in range(0, len(items), HELD_KEYS_MAX)] or [{}]

    def note(self, node_id: bytes, counts: Mapping[bytes, int], *, whole: bool) -> None:
        """Take over what another node tells; *whole*: what it does not name is 0."""
        if whole:
            self.forget(node_id)
        known = self._elsewhere.setdefault(node_id, {})
        for key, count in counts.items():
            self._add(key, count - known.get(key, 0))
            if count:
                known[key] = count
            else:
                known.pop(key, None)

    def forget(self, node_id: bytes) -> None:
        """Drop what a node told: it is dead."""
        for key, count in self._elsewhere.pop(node_id, {}).items():
            self._add(key, -count)

    def _add(self, key: bytes, count: int) -> None:
        total = self._others.get(key, 0) + count
        if total:
            self._others[key] = total
        else:
            self._others.pop(key, None)


class Shares:
    """What this node tells the others, and takes over from them."""

    def __init__(self, limiters: Mapping[str, RateLimiter], held: InFlight) -> None:
        """Begin to share; from here on every limiter notes what is taken.

        Args:
            limiters: by the name they have at every node.
        """
        self._limiters = dict(limiters)
        self._held = held
        for limiter in self._limiters.values():
            limiter.drain_taken()

    def collect(self) -> NodeShare | None:
        """Return what happened since the last time, for every other node; None: nothing."""
        taken = {name: taken for name, limiter in self._limiters.items() if (taken := limiter.drain_taken())}
        held = self._held.drain_changed()
        return NodeShare(taken, held) if taken or held else None

    def whole(self) -> list[NodeShare]:
        """Return messages that tell one node, which is new or missed some, everything that is held here."""
        return [NodeShare({}, piece, whole=number == 0) for number, piece in enumerate(self._held.whole())]

    def apply(self, node_id: bytes, share: NodeShare) -> None:
        """Take over what another node tells. A limiter that is not known here (another version's) is passed over."""
        for name, taken in share.taken.items():
            limiter = self._limiters.get(name)
            if limiter is not None:
                for key, count in taken.items():
                    limiter.charge(key, count)
        if share.held or share.whole:
            self._held.note(node_id, share.held, whole=share.whole)

    def forget(self, node_id: bytes) -> None:
        """Drop what a dead node held."""
        self._held.forget(node_id)
