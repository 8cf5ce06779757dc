"""What a host's transport means for its jobs. What the host can do is a matter of its offer, not of its transport.

Dispatch reads these properties and never compares transports by name (tests/house/test_transports.py).
"""

from collections.abc import Mapping
from typing import NamedTuple

from comptoir.hosts.types import LINK, POLL, PUSH


class Reach(NamedTuple):
    """The properties of one transport."""

    stops_at_once: bool
    """The host receives a cancel at once, so it may start before its job is written, or beside another host."""
    keeps_frames: bool
    """The host keeps what it sent until the lease is settled, and resends it to a coordinator that has lost it."""
    comes_back: bool
    """The host reconnects after an interruption, so it is waited for and gets its jobs then."""
    sends_as_made: bool
    """The host sends each frame as it is produced, so its silence means something."""
    hears_midway: bool
    """The host can be told something about a job while it works on it: that its answer may be longer."""
    one_place: bool
    """Only the coordinator that the host is connected to can give it jobs; otherwise all of them can."""


_BY_REQUESTS = Reach(
    stops_at_once=False, keeps_frames=False, comes_back=False, sends_as_made=False, hears_midway=False, one_place=False
)
"""Of hosts without a connection that stays."""

REACHES: Mapping[str, Reach] = {
    LINK: Reach(
        stops_at_once=True, keeps_frames=True, comes_back=True, sends_as_made=True, hears_midway=True, one_place=True
    ),
    POLL: _BY_REQUESTS,
    PUSH: _BY_REQUESTS,
}
"""By transport (`TRANSPORTS`)."""
