"""Revoked keys and operators' acts, told to the other coordinators at once: who may still do what.

A lost message costs a minute for a key (`identity.KEY_CACHE_S`), and for an act the time between two looks at the
record (`dispatch.moderate.FOLLOW_EVERY`). A version without acts ignores their number.
"""

from comptoir.cluster.messages import Revoked
from comptoir.cluster.switchboard import Switchboard
from comptoir.dispatch import Core
from comptoir.dispatch.moderate import catch_up
from comptoir.events import ActRecorded, KeysRevoked
from comptoir.kit.errors import Unavailable


class StandingNews:
    """Sends what was decided here, and applies what was decided elsewhere."""

    def __init__(self, core: Core, switchboard: Switchboard) -> None:
        self._core = core
        switchboard.on(Revoked, self._heard)
        switchboard.on_gap.append(self._missed)
        core.events.subscribe(KeysRevoked, lambda event: switchboard.tell_all(Revoked(event.digests)))
        core.events.subscribe(ActRecorded, lambda event: switchboard.tell_all(Revoked([], event.number)))

    def _heard(self, sender: bytes, news: Revoked) -> None:
        self._core.identity.forget_keys(news.keys)
        if news.acts > self._core.moderation.read_to:
            self._core.background.spawn(self._catch_up())

    def _missed(self, sender: bytes) -> None:
        """Messages of *sender* were lost: revocations and acts may be among them."""
        self._core.identity.forget_all_keys()
        self._core.background.spawn(self._catch_up())

    async def _catch_up(self) -> None:
        try:
            await catch_up(self._core)
        except Unavailable:
            return  # The next sweep reads the record.
