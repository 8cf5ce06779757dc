"""Answers as they are stored."""

from typing import NamedTuple

import msgspec

from comptoir.link import Frame

FRAME_OVERHEAD_BYTES = 16
"""What a frame counts beside its text and extra."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Frame]).decode


def encode_frames(frames: list[Frame]) -> bytes:
    """Return *frames* as stored in ``answers`` and ``journal``; empty when there are none."""
    return _encode(frames) if frames else b""


def decode_frames(stored: bytes) -> list[Frame]:
    """Read back what `encode_frames` wrote."""
    return _decode(stored) if stored else []


class StoredAnswer(NamedTuple):
    """An answer as read back, with what `LiveJob` finds when its frames come."""

    frames: list[Frame]
    details: bytes
    """The engine's usage object as JSON."""
    frame_bytes: int = 0
    has_extras: bool = False

    @classmethod
    def of(cls, stored: bytes, details: bytes) -> "StoredAnswer":
        """Decode and measure *stored*; in a thread if it is large."""
        frames = decode_frames(stored)
        size = sum(len(frame.text.encode()) + len(frame.extra) + FRAME_OVERHEAD_BYTES for frame in frames)
        return cls(frames, details, size, any(frame.extra for frame in frames))
