"""How much becomes of a JSON body when it is decoded: ``1,`` has two bytes, and is an object of seventy.

A list of 30 MB of ones took two seconds of everybody's time and a gigabyte. A bound in its type is looked at only when
the list is there, so the values of a large body are counted before, by its commas and brackets.
"""

VALUES_MAX = 1 << 20
"""Most values (numbers, texts, lists, objects) of one body; a prompt of a million token ids is one that fits."""

VALUE_BYTES = 48
"""What a value costs in memory beside its text, about; counted with the body where that is counted."""

FEW_VALUES = 64 << 10
"""So many are not looked at closely."""

STRINGS_MAX = 64 << 10
"""Most quotes of a body whose strings are left out of the count: what stands in a prompt is no value. One with more is
counted as it is."""


def values_in(body: bytes) -> int:
    """Return about how many values a JSON *body* has, at least; of one that is no JSON some number."""
    count = _marks(body)
    if count <= FEW_VALUES:
        return count
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if bare.count(b'"') > STRINGS_MAX:
        return count
    return sum(map(_marks, bare.split(b'"')[::2]))


def _marks(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")
