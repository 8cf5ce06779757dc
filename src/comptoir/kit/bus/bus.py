"""What a bus is, its bounds, and how one is opened."""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

NODE_ID_BYTES = 16

MESSAGE_BYTES_MAX = 1 << 20
"""Largest message, 1 MiB: 1,000 times what is usual. Whoever has more to say cuts it."""

ENTRY_BYTES_MAX = 256 << 10
"""Messages for one receiver are gathered up to this size; an entry is copied once at the server."""

OUTGOING_BYTES_MAX = 32 << 20
"""Bytes that wait to be taken by the bus; what would go beyond is dropped. A second at 32 MB/s."""

PEERS_MAX = 1_024
"""Nodes whose numbers are remembered, each way. A forgotten one starts over, which the receiver sees as a gap."""

INBOX_TTL_S = 10
"""An inbox that its node did not look after for so long is gone, with what was in it: nothing is delivered later."""

POST = re.compile(r"[A-Za-z0-9_.-]{1,64}")

OnMessage = Callable[[bytes, bytes], None]
"""Gets the sender's node id and the message."""
OnChange = Callable[[bool], None]
"""Gets whether the bus is up now."""
OnGap = Callable[[bytes], None]
"""Gets the node id of a sender of whom messages were lost."""


@dataclass(slots=True)
class Traffic:
    """What went over one node's end of the bus since the start."""

    sent: int = 0
    """Messages handed to the bus; a few of the last may be lost with its connection."""
    received: int = 0
    dropped: int = 0
    """Messages not sent: the bus was down, too much waited, or it was too large."""
    gaps: int = 0
    """Times that messages of a sender were found lost."""


class Bus(Protocol):
    """One node's end of the bus; see the door's docstring for what it promises. For the event loop that started it."""

    up: bool
    """Whether messages can be sent now."""
    traffic: Traffic

    async def start(self, *, on_message: OnMessage, on_change: OnChange, on_gap: OnGap) -> None:
        """Begin to receive, once; returns when the first try to connect ended, well or not, within about a second.

        What a callback raises is logged and stops nothing.
        """
        ...

    def send(self, node_id: bytes, data: bytes) -> None:
        """Send *data* (0 to `MESSAGE_BYTES_MAX` bytes) to a node; never waits, never raises, may lose."""
        ...

    async def close(self) -> None:
        """Send what waits, within half a second, and leave; idempotent. No callback is called any more."""
        ...


def open_bus(address: str, node_id: bytes, *, post: str) -> Bus:
    """Make the node's end of the bus at *address*; nothing is connected before `Bus.start`.

    Args:
        address: ``redis://[user:password@]host[:port][/database]``, the same with ``rediss`` (TLS), ``valkey`` or
            ``valkeys``, or ``unix://[user:password@]/path[?db=database]``. With TLS ``?ssl_ca_certs=FILE`` names who is
            trusted instead of the system's authorities.
        node_id: 16 bytes, fresh for every process.
        post: name of the trading post, 1 to 64 of letters, digits, ``_``, ``.`` and ``-``; posts of different names on
            one server never meet.

    Raises:
        ValueError: the address or the name is malformed; the message does not repeat the address.
        ModuleNotFoundError: the extra ``comptoir[bus]`` is not installed.
    """
    if len(node_id) != NODE_ID_BYTES:
        raise ValueError(f"a node id has {NODE_ID_BYTES} bytes")
    if not POST.fullmatch(post):
        raise ValueError("the name of a trading post has 1 to 64 letters, digits, '_', '.' or '-'")
    # Chosen by configuration: the parser is an extra and must not be imported without need.
    bus: Bus = importlib.import_module("comptoir.kit.bus.streams").RedisBus(address, node_id, post=post)
    return bus
