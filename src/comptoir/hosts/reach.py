"""What the way a host is reached means for its jobs. What the host can do is in its offer, and no matter of this.

The verbs ask these questions; none of them compares transports by name (tests/house/test_transports.py).
"""

from collections.abc import Mapping
from typing import NamedTuple

from comptoir.hosts.types import LINK, POLL, PUSH


class Reach(NamedTuple):
    """One way of reaching hosts."""

    stops_at_once: bool
    """It hears of a cancel at once: so it may begin while its job is still being written, and beside another host."""
    keeps_frames: bool
    """It keeps what it sent until the lease is settled, and sends it again to a coordinator that has lost it."""
    comes_back: bool
    """Out of reach for a moment, it is waited for, and gets its jobs when it is back."""
    sends_as_made: bool
    """It sends each frame when it is made, so its silence says something."""
    one_place: bool
    """Only the coordinator that it is connected to can give it jobs; any other host may be reached from all of them."""


REACHES: Mapping[str, Reach] = {
    LINK: Reach(stops_at_once=True, keeps_frames=True, comes_back=True, sends_as_made=True, one_place=True),
    POLL: Reach(stops_at_once=False, keeps_frames=False, comes_back=False, sends_as_made=False, one_place=False),
    PUSH: Reach(stops_at_once=False, keeps_frames=False, comes_back=False, sends_as_made=False, one_place=False),
}
"""By transport (`TRANSPORTS`)."""
