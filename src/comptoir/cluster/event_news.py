"""Numbered events of this coordinator, announced to those with followers: which owners have new ones, not the events.

Followers read the events from the table (`comptoir.events`). A lost message only costs a delay: whenever some may have
been lost, all followers read the table.
"""

import asyncio

from comptoir.cluster.messages import News
from comptoir.cluster.sharing import Sharing
from comptoir.cluster.switchboard import Switchboard
from comptoir.dispatch import Core
from comptoir.events import NUMBERED, FollowingBegan, NumberedEvent

GATHER_S = 0.02
"""How long numbers are batched before they are sent: at most 50 messages a second."""

KNOWN_S = 1.0
"""Time after which all others know that there are followers here."""


class EventNews:
    """Sends notices about events here, and wakes followers here on notices from others."""

    def __init__(self, core: Core, switchboard: Switchboard, sharing: Sharing) -> None:
        self._core = core
        self._board = switchboard
        self._sharing = sharing
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._fresh: dict[bytes, int] = {}
        """Highest number not sent yet, by owner: those of the last `GATHER_S`."""
        switchboard.on(News, self._heard)
        switchboard.on_gap.append(lambda sender: core.events.poll_all())
        switchboard.on_change.append(lambda up: core.events.poll_all())
        core.events.subscribe(FollowingBegan, self._look_soon)
        for kind in NUMBERED:
            core.events.subscribe(kind, self._note)

    def _look_soon(self, event: FollowingBegan) -> None:
        """Let followers read the table shortly: others did not announce what they wrote before they knew of them."""
        self._loop.call_later(KNOWN_S, self._core.events.poll_all)

    def _note(self, event: NumberedEvent) -> None:
        self._fresh[event.owner_id] = event.number
        if self._timer is None:
            self._timer = self._loop.call_later(GATHER_S, self._tell)

    def _tell(self) -> None:
        self._timer = None
        fresh, self._fresh = self._fresh, {}
        for node_id in self._sharing.followers():
            self._board.send(node_id, News(list(fresh.items())))

    def _heard(self, sender: bytes, news: News) -> None:
        for owner_id, number in news.numbers:
            self._core.events.heard_elsewhere(owner_id, number)

    def forget_node(self, node_id: bytes) -> None:
        """A coordinator is dead, and may have written events that it could not announce: followers read the table."""
        self._core.events.poll_all()

    def stop(self) -> None:
        """Send nothing more."""
        if self._timer is not None:
            self._timer.cancel()
