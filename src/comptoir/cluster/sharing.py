"""Limits across all coordinators: usage of rate limits and buyers' open jobs, exchanged ten times a second.

A limit is exceeded at most by what was used elsewhere within a tenth of a second; without a bus, each coordinator
enforces it alone.
"""

import asyncio
from collections.abc import Mapping

import msgspec

from comptoir.cluster.messages import Spent, Totals
from comptoir.cluster.switchboard import Switchboard
from comptoir.containers import RemoteContainers
from comptoir.dispatch import Core
from comptoir.dispatch.buyers import Buyers
from comptoir.dispatch.meters import Meters
from comptoir.events import FollowingBegan
from comptoir.kit.ratelimit import RateLimiter
from comptoir.kit.shares import NodeShare, Shares

TELL_S = 0.1
"""Interval between messages."""

TOTALS_EVERY = 10
"""Every how many messages the totals are sent, for the numbers shown on the page."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(NodeShare).decode


class Sharing:
    """Sends what happened here, and applies what happened elsewhere."""

    def __init__(self, core: Core, switchboard: Switchboard) -> None:
        self._core = core
        self._board = switchboard
        self._loop = asyncio.get_running_loop()
        self._shares: Shares | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._turns = 0
        self._told: Totals | None = None
        self._heard: dict[bytes, Totals] = {}
        self._known: set[bytes] = set()
        """Coordinators that were sent everything."""
        switchboard.on(Spent, self._spent)
        switchboard.on(Totals, self._totals)
        # A new follower here has to receive events from elsewhere at once, not only after the next second's totals.
        core.events.subscribe(FollowingBegan, lambda event: self._tell_totals(frozenset()))

    def begin(self, limiters: Mapping[str, RateLimiter]) -> None:
        """Share *limiters*, by their common names, and the buyers' unfinished jobs."""
        self._shares = Shares(limiters, self._core.state(Buyers).in_flight)
        self._timer = self._loop.call_later(TELL_S, self._tell)

    def stop(self) -> None:
        """Send nothing more."""
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
        self._turns += 1
        if self._turns % TOTALS_EVERY == 0 or here - self._known:
            self._tell_totals(here - self._known)
        self._known = set(here)

    def _tell_totals(self, new: frozenset[bytes]) -> None:
        """Send changed totals to all, or current ones to *new* coordinators as their starting point."""
        meters = self._core.state(Meters)
        totals = Totals(dict(meters.ended), meters.newcomers, self._core.jobs.live.staged, self._core.events.followed)
        for node_id in new if totals == self._told else self._board.here:
            self._board.send(node_id, totals)
        self._told = totals

    def _totals(self, sender: bytes, totals: Totals) -> None:
        before = self._heard.get(sender)
        self._heard[sender] = totals
        self._tell_staged_jobs()
        if before is None:
            return  # What ended before this coordinator joined is in the database, which it counted.
        ended = {state: count - before.ended.get(state, 0) for state, count in totals.ended.items()}
        self._core.state(Meters).count_elsewhere(ended, users=totals.users - before.users)

    def _tell_staged_jobs(self) -> None:
        self._core.state(RemoteContainers).note_staged_jobs(sum([heard.staged_jobs for heard in self._heard.values()]))

    def followers(self) -> list[bytes]:
        """Return the coordinators that have followers of events, as they last reported."""
        return [node_id for node_id in self._board.here if node_id in self._heard and self._heard[node_id].followed]

    def _spent(self, sender: bytes, message: Spent) -> None:
        if self._shares is not None:
            self._shares.apply(sender, _decode(message.shares))

    def tell_whole(self, node_id: bytes) -> None:
        """Send one coordinator everything with the next message: it is new, or missed some."""
        self._known.discard(node_id)

    def forget_node(self, node_id: bytes) -> None:
        """Forget a dead coordinator's counts: other coordinators own and count its jobs by now."""
        self._heard.pop(node_id, None)
        self._tell_staged_jobs()
        if self._shares is not None:
            self._shares.forget(node_id)
