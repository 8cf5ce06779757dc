"""The running hash over a job's frames: the host signs it, and a receipt identifies the answer by it.

``c0 = sha256("comptoir-frames-1" + job id)`` and ``c(n+1) = sha256(c(n) + len(text) + tokens + len(extra) +
text + extra)`` with three big-endian unsigned 32-bit integers; *text* is UTF-8, *extra* the JSON bytes as sent.
"""

import hashlib
import struct
from collections.abc import Sequence

import msgspec

from comptoir.link.messages import Frame

RUNNING_HASH_BYTES = 32
_HEADER_BYTES = RUNNING_HASH_BYTES + 12
_header = struct.Struct(">32sIII").pack


class FramesRead(msgspec.Struct, frozen=True, gc=False):
    """What some frames say, all of it found in one pass."""

    running_hash: bytes
    """After them."""
    claimed: int
    """Units that they stand for, as their host counts."""
    size: int
    """Bytes of their texts and extras."""
    extras: list[bytes]
    """Those that are not empty."""


def hash_start(job_id: bytes) -> bytes:
    """Return the running hash of a job without frames."""
    return hashlib.sha256(b"comptoir-frames-1" + job_id).digest()


def hash_after(digest: bytes, frame: Frame) -> bytes:
    """Return the running hash after *frame*."""
    return hash_over(digest, (frame,))


def hash_over(digest: bytes, frames: Sequence[Frame]) -> bytes:
    """Return the running hash after *frames*, in order."""
    return read_frames(digest, frames).running_hash


def read_frames(digest: bytes, frames: Sequence[Frame]) -> FramesRead:
    """Read *frames*, which follow on those with this running hash."""
    sha256, header = hashlib.sha256, _header
    extras: list[bytes] = []
    claimed = size = 0
    for frame in frames:
        text, tokens, extra = frame.text.encode(), frame.tokens, frame.extra
        hashed = header(digest, len(text), tokens, len(extra)) + text + extra
        digest = sha256(hashed).digest()
        claimed += tokens
        size += len(hashed)
        if extra:
            extras.append(extra)
    return FramesRead(digest, claimed, size - _HEADER_BYTES * len(frames), extras)
