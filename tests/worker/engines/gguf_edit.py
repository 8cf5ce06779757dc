"""Make variants of a GGUF file for tests: other metadata, the same tensors."""

import struct
from pathlib import Path

_ALIGNMENT = 32
_UINT32, _STRING = 4, 8


def with_metadata(source: Path, target: Path, values: dict[str, int | str]) -> Path:
    """Write *source* to *target* with *values* in its head; a key that exists is renamed out of the way."""
    data = source.read_bytes()
    added = b""
    for key, value in values.items():
        name = _text(key)
        data = data.replace(name, _text(key[:-1] + "~"), 1)
        added += name + (struct.pack("<II", _UINT32, value) if isinstance(value, int) else _string(value))
    filler = _text("filler")
    # The tensors keep their alignment when the head grows by a multiple of it.
    spaces = -(len(added) + len(filler) + len(_string(""))) % _ALIGNMENT
    added += filler + _string(" " * spaces)
    count = struct.unpack_from("<Q", data, 16)[0] + len(values) + 1
    target.write_bytes(data[:16] + struct.pack("<Q", count) + added + data[24:])
    return target


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _string(text: str) -> bytes:
    return struct.pack("<I", _STRING) + _text(text)
