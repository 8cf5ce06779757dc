"""The wire between coordinator and worker: frozen shapes, version, frame chain and segment statement.

Both sides import this package and share nothing else. One WebSocket message is one msgpack array of
messages (a batch of one loop tick). Loss and doubling are prevented per lease, not per connection: frames
of a lease are numbered from 0, the coordinator acknowledges what it holds, the worker keeps a frame at least until
acknowledged, and after a reconnect both say where they are (`Hello.open`, `Welcome.have`).
"""

from comptoir.link.chain import CHAIN_BYTES, chain_start, chain_step
from comptoir.link.messages import (
    COUNT_MAX,
    LINK_VERSION,
    USAGE_BYTES_MAX,
    Acks,
    Bye,
    Cancel,
    Done,
    Drain,
    Fail,
    Frame,
    Frames,
    FromCoordinator,
    FromWorker,
    Have,
    Hello,
    Job,
    ModelOffer,
    Models,
    OpenAttempt,
    Pulse,
    PulseAnswer,
    Settled,
    Usage,
    Welcome,
    decode_from_coordinator,
    decode_from_worker,
    encode,
)
from comptoir.link.segment import SEGMENT_PAYLOAD_TYPE, Segment, pae, segment_bytes

__all__ = [
    "CHAIN_BYTES",
    "COUNT_MAX",
    "LINK_VERSION",
    "SEGMENT_PAYLOAD_TYPE",
    "USAGE_BYTES_MAX",
    "Acks",
    "Bye",
    "Cancel",
    "Done",
    "Drain",
    "Fail",
    "Frame",
    "Frames",
    "FromCoordinator",
    "FromWorker",
    "Have",
    "Hello",
    "Job",
    "ModelOffer",
    "Models",
    "OpenAttempt",
    "Pulse",
    "PulseAnswer",
    "Segment",
    "Settled",
    "Usage",
    "Welcome",
    "chain_start",
    "chain_step",
    "decode_from_coordinator",
    "decode_from_worker",
    "encode",
    "pae",
    "segment_bytes",
]
