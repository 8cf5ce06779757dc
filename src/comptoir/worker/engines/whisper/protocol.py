"""What a worker and the process that hears tell each other: `Piece` to it, `Said` back, each a line of JSON."""

from typing import Any

import msgspec

SAMPLE_RATE = 16_000
"""Samples a second, one channel, 16 bits: what every Whisper hears."""
SAMPLE_BYTES = 2


class Piece(msgspec.Struct, frozen=True):
    """A piece of sound, and how it is to be heard."""

    samples: int
    language: str
    """Empty: it has to be heard."""
    task: str
    temperature: float
    best_of: int
    beam_size: int
    patience: float
    suppress_tokens: tuple[int, ...]
    prompt: str
    """What was said before; its end is what is looked at."""
    whole_prompt: bool
    """Whether a prompt is refused that would be cut."""
    conditioned: bool
    words: bool
    vad: bool


class Said(msgspec.Struct, omit_defaults=True):
    """One line of what is said: the first is *ready*, then as many *segment* as a piece has, and *done*."""

    ready: dict[str, Any] | None = None
    segment: dict[str, Any] | None = None
    """Of faster-whisper, times from the piece's beginning."""
    language: str = ""
    """Of the piece, before its first segment."""
    probability: float = 0.0
    refused: str = ""
    """``field: why``"""
    done: bool = False
