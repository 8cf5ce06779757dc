"""The running hash over a job's frames: the host signs it, and a receipt identifies the answer by it.

``c0 = sha256("comptoir-frames-1" + job id)`` and ``c(n+1) = sha256(c(n) + len(text) + tokens + len(extra) +
text + extra)`` with three big-endian unsigned 32-bit integers; *text* is UTF-8, *extra* the JSON bytes as sent.
"""

import hashlib
import struct
from collections.abc import Iterable

from comptoir.link.messages import Frame

RUNNING_HASH_BYTES = 32
_header = struct.Struct(">III").pack


def hash_start(job_id: bytes) -> bytes:
    """Return the running hash of a job without frames."""
    return hashlib.sha256(b"comptoir-frames-1" + job_id).digest()


def hash_after(digest: bytes, frame: Frame) -> bytes:
    """Return the running hash after *frame*."""
    return hash_over(digest, (frame,))


def hash_over(digest: bytes, frames: Iterable[Frame]) -> bytes:
    """Return the running hash after *frames*, in order."""
    sha256, header = hashlib.sha256, _header
    for frame in frames:
        text, extra = frame.text.encode(), frame.extra
        digest = sha256(digest + header(len(text), frame.tokens, len(extra)) + text + extra).digest()
    return digest
