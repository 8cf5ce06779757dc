"""How many values a msgpack message has, counted without making them: one byte becomes an object of seventy."""

from collections.abc import Mapping

BEHIND: Mapping[int, int] = {
    0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
"""Bytes behind a tag of fixed size: numbers and extensions."""

SIZED: Mapping[int, tuple[int, int]] = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1), 0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),
}  # fmt: skip
"""Tags of bytes, extensions and texts: bytes of their length, and bytes that it does not count."""

LISTED: Mapping[int, tuple[int, int]] = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Tags of lists and mappings: bytes of their length, and values an entry."""


def values_within(data: bytes, most: int) -> bool:
    """Tell whether *data* has at most *most* values, those in lists and mappings included; what it is cut short by is
    for the decoder to say."""
    at, left = 0, 1
    size = len(data)
    while left and at < size:
        tag = data[at]
        at += 1
        left -= 1
        most -= 1
        if most < 0:
            return False
        if tag < 0x80 or tag >= 0xE0:
            continue
        if tag < 0x90:
            left += 2 * (tag & 0x0F)
        elif tag < 0xA0:
            left += tag & 0x0F
        elif tag < 0xC0:
            at += tag & 0x1F
        elif tag in SIZED:
            wide, more = SIZED[tag]
            at += wide + more + int.from_bytes(data[at : at + wide])
        elif tag in LISTED:
            wide, each = LISTED[tag]
            left += each * int.from_bytes(data[at : at + wide])
            at += wide
        else:
            at += BEHIND.get(tag, 0)
    return True
