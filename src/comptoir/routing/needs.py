"""What an order requires of the machine that runs it and of its host, and what a machine has."""

from functools import lru_cache

import msgspec

DECODED_MAX = 4_096
"""Decoded needs that are cached: they are read whenever a job is queued, and many jobs have the same."""


class Capacity(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a host declares that its machine has, beside the GPU's name and memory. 0: not declared."""

    gpus: int = 0
    cpu_millis: int = 0
    """Thousandths of a processor core."""
    memory_mib: int = 0
    disk_mib: int = 0
    """Free for jobs."""


class Needs(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an order requires of a host beyond model and price. Empty, 0 and None mean "any"."""

    gpu: str = ""
    """Part of the GPU's name, in any case: ``h100``."""
    gpus: int = 0
    """Minimum number of GPUs; every number up to *disk_mib* is a minimum."""
    vram_mib: int = 0
    """Over all GPUs of the host."""
    cpu_millis: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    region: str = ""
    tier: str = ""
    rate_caps: tuple[tuple[str, int], ...] = ()
    """Pairs of unit and highest price, micro-dollars per million; excludes hosts that do not sell by that unit."""
    allow: frozenset[bytes] | None = None
    """Only these host ids."""
    deny: frozenset[bytes] = frozenset()
    """None of these host ids."""
    min_reputation: float = 0.0
    """0..1."""


NO_CAPACITY = Capacity()
_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Needs).decode


def encode_needs(needs: Needs | None) -> bytes | None:
    """Return *needs* as stored with a job (JSON); None: it has none."""
    return _encode(needs) if needs is not None and needs != NOTHING else None


@lru_cache(DECODED_MAX)
def _read(stored: bytes) -> Needs:
    return _decode(stored)


def decode_needs(stored: bytes | None) -> Needs | None:
    """Read back what `encode_needs` wrote."""
    return _read(stored) if stored is not None else None


NOTHING = Needs()
