"""Token buckets, one a key or address: constant time, bounded memory, and what the rate-limit headers need.

A bucket is one number, the moment it will be full again (the generic cell rate algorithm), so an unused bucket and
no bucket are the same thing and old ones can be dropped.

Several processes that limit the same keys tell each other what was taken (`RateLimiter.drain_taken`) and charge it
(`RateLimiter.charge`); `kit.shares` makes messages of that. A bucket that was overdrawn meanwhile owes up to one
filling more, so the lasting rate holds over all of them together; one alone keeps no such book and pays nothing for it.
"""

from ipaddress import IPv6Address

import msgspec

from comptoir.kit.clock import Clock
from comptoir.kit.errors import TooManyRequests

KEYS_MAX = 200_000
"""Buckets kept by one limiter, about 150 bytes each. Beyond it, within one filling time, the oldest are forgotten."""

SHARED_KEYS_MAX = 5_000
"""Keys of which is noted between two `drain_taken` what was taken; further ones are counted here alone until then."""

Key = str | bytes


class Allowance(msgspec.Struct, frozen=True, gc=False):
    """What a key may still do; the source of ``x-ratelimit-*`` and ``retry-after``."""

    allowed: bool
    limit: int
    """Size of the bucket, requests."""
    remaining: int
    """Requests that may follow at once."""
    reset_s: float
    """Seconds until the bucket is full again."""
    retry_after_s: float
    """Seconds until one request is allowed; 0 when *allowed*."""


class RateLimiter:
    """A bucket of *per_minute* requests for every key; it fills evenly within a minute (or another *window_s*)."""

    __slots__ = (
        "_dust_s", "_fill_s", "_half", "_keep_s", "_monotonic_s", "_old", "_step_s", "_taken", "_turns_s", "_young", "limit"
    )  # fmt: skip

    def __init__(
        self,
        *,
        per_minute: int,
        clock: Clock,
        burst: int | None = None,
        keys_max: int = KEYS_MAX,
        window_s: float = 60.0,
    ) -> None:
        """Make an empty limiter.

        Args:
            per_minute: lasting rate, >= 1, within *window_s* (> 0).
            burst: size of the bucket; *per_minute* by default.
            keys_max: buckets remembered, >= 2.
        """
        assert per_minute >= 1
        assert keys_max >= 2
        self.limit = burst if burst is not None else per_minute
        self._step_s = window_s / per_minute
        self._fill_s = self._step_s * self.limit
        self._dust_s = self._step_s * -1e-6
        """A millionth of a step keeps float dust from refusing the last request of a full bucket."""
        self._keep_s = self._fill_s
        """How long after its last use a bucket may still not be full."""
        self._taken: dict[Key, int] | None = None
        """What was taken since the last `drain_taken`; None: nobody asked yet."""
        self._half = keys_max // 2
        self._monotonic_s = clock.monotonic_s
        self._young: dict[Key, float] = {}
        self._old: dict[Key, float] = {}
        self._turns_s = clock.monotonic_s() + self._keep_s
        """When the next generation begins at the latest."""

    def take(self, key: Key) -> Allowance:
        """Take one request out of the bucket of *key*; a refused one takes nothing."""
        now, step_s = self._monotonic_s(), self._step_s
        full_at = self._young.get(key)
        if full_at is None:
            full_at = self._old.get(key, now)
        if full_at < now:
            full_at = now
        full_at += step_s
        after = full_at - now
        left_s = self._fill_s - after
        if left_s < self._dust_s:
            return Allowance(False, self.limit, 0, after - step_s, -left_s)
        if now > self._turns_s or len(self._young) >= self._half:
            self._turn(now)
        self._young[key] = full_at
        if self._taken is not None:
            self._note_taken(self._taken, key)
        return Allowance(True, self.limit, int(left_s / step_s + 1e-6), after, 0.0)

    def _note_taken(self, taken: dict[Key, int], key: Key) -> None:
        if key in taken:
            taken[key] += 1
        elif len(taken) < SHARED_KEYS_MAX:
            taken[key] = 1

    def check(self, key: Key, message: str) -> Allowance:
        """Take one request, or refuse.

        Raises:
            TooManyRequests: with *message* and when to come back.
        """
        allowance = self.take(key)
        if not allowance.allowed:
            raise TooManyRequests(message, retry_after_s=allowance.retry_after_s)
        return allowance

    def drain_taken(self) -> dict[Key, int]:
        """Return what was taken here for each key since the last call; the first one begins the counting."""
        taken, self._taken = self._taken, {}
        if taken is None:
            self._turns_s += self._fill_s * 2 - self._keep_s
            self._keep_s = self._fill_s * 2
            return {}
        return taken

    def charge(self, key: Key, count: int) -> None:
        """Take *count* (>= 1) requests that were allowed elsewhere; the bucket may then owe up to one filling."""
        assert count >= 1
        now = self._monotonic_s()
        full_at = self._young.get(key)
        if full_at is None:
            full_at = self._old.get(key, now)
        if now > self._turns_s or len(self._young) >= self._half:
            self._turn(now)
        self._young[key] = min(max(full_at, now) + self._step_s * count, now + self._fill_s * 2)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def _turn(self, now: float) -> None:
        """Start a new generation. A bucket not touched for a whole filling time is full, so nothing is lost by dropping
        it; only when more than *keys_max* keys come within that time do the oldest start afresh."""
        self._old, self._young = self._young, {}
        self._turns_s = now + self._keep_s


def address_block(ip: str) -> str:
    """Return the block of addresses that one owner is likely to have: the /24 of an IPv4 address, an IPv6 one's /64."""
    key = address_key(ip)
    return f"{key.rpartition('.')[0]}.0/24" if "." in key else key


def address_key(ip: str) -> str:
    """Return what counts as one address: an IPv4 address (also one mapped into IPv6), or the /64 of an IPv6 one.

    A household or a server gets at least a /64 of IPv6, so a bucket for every address of it would limit nobody.
    """
    if ":" not in ip:
        return ip
    try:
        address = IPv6Address(ip.partition("%")[0])
    except ValueError:
        return ip
    mapped = address.ipv4_mapped
    return str(mapped) if mapped is not None else f"{int(address) >> 64:x}::/64"
