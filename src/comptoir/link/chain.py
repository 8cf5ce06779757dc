"""The running hash over a job's frames: what the host signs and what a receipt names as the answer.

``c0 = sha256("comptoir-frames-1" + job id)`` and ``c(n+1) = sha256(c(n) + len(text) + tokens + len(extra) +
text + extra)`` with three big-endian unsigned 32-bit integers; *text* is UTF-8, *extra* the JSON bytes as sent.
"""

import hashlib
import struct
from collections.abc import Iterable

from comptoir.link.messages import Frame

CHAIN_BYTES = 32
_header = struct.Struct(">III").pack


def chain_start(job_id: bytes) -> bytes:
    """Return the chain value of a job without frames."""
    return hashlib.sha256(b"comptoir-frames-1" + job_id).digest()


def chain_step(chain: bytes, frame: Frame) -> bytes:
    """Return the chain value after *frame*."""
    return chain_over(chain, (frame,))


def chain_over(chain: bytes, frames: Iterable[Frame]) -> bytes:
    """Return the chain value after *frames*, in order."""
    sha256, header = hashlib.sha256, _header
    for frame in frames:
        text, extra = frame.text.encode(), frame.extra
        chain = sha256(chain + header(len(text), frame.tokens, len(extra)) + text + extra).digest()
    return chain
