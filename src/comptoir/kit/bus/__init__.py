"""The bus: short messages between the coordinators of one trading post. It carries news, never the truth.

Every coordinator process has a fresh node id (16 bytes) and one inbox. `Bus.send` never waits and never fails: a
message may be lost, and then the receiver hears `on_gap`, with the sender's id, and asks for what it needs. What must
not be lost is in the database.

The contract, which tests/kit/test_bus.py holds against every implementation:

- Messages of one sender come in order, each at most once, on the event loop.
- What is lost before a message that comes is told by `on_gap` just before it. If nothing more is sent, the receiver
  hears of the loss by itself within about a second of both being on the bus again (a mark is sent in place of what was
  lost). A receiver that begins later than its sender hears `on_gap` first, if something was sent to it before it could
  hear.
- `on_gap` may come once more than needed, never once too few: whoever hears it asks its sender for the state of things.
- `up` says whether messages can be sent now; every change of it calls `on_change`, the first one to true too. What is
  sent while it is false is dropped at once, never kept to arrive late.
- A message has at most `MESSAGE_BYTES_MAX` bytes, what waits for a bus at most `OUTGOING_BYTES_MAX`; more is dropped,
  and told as a gap.

Two implementations:

- Nodes of one event loop that meet at an exchange, which tests cut and mend (tests/kit/local_bus.py).
- Redis or Valkey Streams, 6.2 or newer (`open_bus`; needs the extra ``comptoir[bus]``). One stream per inbox,
  ``comptoir:<post>:inbox:<node id>``. The receiver makes it, reads it with a blocking XREAD, cuts off what it read and
  keeps it alive; senders only add to one that exists, so nothing collects behind a dead node, and its inbox expires
  after `INBOX_TTL_S`. Everything of one turn of the event loop is written at once, as one entry per receiver. A server
  that stops answering is noticed within a second, and the connection comes back by itself. One server (or a primary
  behind a fixed name) is meant; Redis Cluster is not spoken. Persistence is not needed: an inbox that is gone is made
  again, and everybody known hears of the gap.

Units: times in seconds, sizes in bytes. Knows: nobody.
"""

from comptoir.kit.bus.bus import (
    MESSAGE_BYTES_MAX,
    OUTGOING_BYTES_MAX,
    Bus,
    Traffic,
    open_bus,
)

__all__ = [
    "MESSAGE_BYTES_MAX",
    "OUTGOING_BYTES_MAX",
    "Bus",
    "Traffic",
    "open_bus",
]
