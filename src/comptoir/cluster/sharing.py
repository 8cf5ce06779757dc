"""Limits that hold over all coordinators: what was taken of rate limits and how many jobs buyers have, told ten times a second;
keys that were revoked, at once.

A limit is looser by what was taken elsewhere within a tenth of a second; without bus each coordinator keeps it by itself.
"""

import asyncio
from collections.abc import Mapping

import msgspec

from comptoir.cluster.messages import Revoked, Spent
from comptoir.cluster.switchboard import Switchboard
from comptoir.dispatch import House
from comptoir.kit.ratelimit import RateLimiter
from comptoir.kit.shares import Share, Shares

TELL_S = 0.1
"""How often."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Share).decode


class Sharing:
    """Tells what happened here, and takes over what happened elsewhere."""

    def __init__(self, house: House, switchboard: Switchboard) -> None:
        self._house = house
        self._board = switchboard
        self._loop = asyncio.get_running_loop()
        self._shares: Shares | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._known: set[bytes] = set()
        """Coordinators that were told everything."""
        switchboard.on(Spent, self._spent)
        switchboard.on(Revoked, lambda sender, message: house.identity.forget_keys(message.keys))
        switchboard.on_gap.append(self._missed)
        house.identity.on_revoked = lambda digests: switchboard.tell_all(Revoked(digests))

    def begin(self, limiters: Mapping[str, RateLimiter]) -> None:
        """Share *limiters*, by the name they have everywhere, and the buyers' unfinished jobs."""
        self._shares = Shares(limiters, self._house.in_flight)
        self._timer = self._loop.call_later(TELL_S, self._tell)

    def stop(self) -> None:
        """Tell nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        assert self._shares is not None
        self._timer = self._loop.call_later(TELL_S, self._tell)
        share = self._shares.collect()
        here = self._board.here if self._board.up else frozenset()
        for node_id in here - self._known:
            for piece in self._shares.whole():
                self._board.send(node_id, Spent(_encode(piece)))
        if share is not None:
            data = _encode(share)
            for node_id in here:
                self._board.send(node_id, Spent(data))
        self._known = set(here)

    def _spent(self, sender: bytes, message: Spent) -> None:
        if self._shares is not None:
            self._shares.apply(sender, _decode(message.shares))

    def _missed(self, sender: bytes) -> None:
        """What it revoked may have gone unheard; what it counts it tells anew when it is hailed."""
        self._house.identity.forget_all_keys()

    def tell_whole(self, node_id: bytes) -> None:
        """Tell one coordinator everything with the next message: it is new, or missed some."""
        self._known.discard(node_id)

    def forget_node(self, node_id: bytes) -> None:
        """A coordinator is gone: its jobs are others' by now, which count them."""
        if self._shares is not None:
            self._shares.forget(node_id)
