"""How much becomes of a JSON body when it is decoded: ``1,`` has two bytes, and is an object of seventy.

A list of 30 MB of ones took two seconds of everybody's time and a gigabyte. A bound in its type is looked at only when
the list is there, so the values of a large body are counted before, by its commas and brackets.
"""

from collections.abc import Iterator

VALUES_MAX = 1 << 20
"""Most values (numbers, texts, lists, objects) of one body; a prompt of a million token ids is one that fits."""

VALUE_BYTES = 48
"""What a value costs in memory beside its text, about; counted with the body where that is counted."""

FEW_VALUES = 64 << 10
"""So many are not looked at closely."""

STRINGS_MAX = 64 << 10
"""Most quotes of a body whose strings are left out of the count: what stands in a prompt is no value. One with more is
counted as it is."""

STEP_BYTES = 1 << 20
"""Bytes that are looked at in one step: 1 to 3 ms."""


def values_step_by_step(body: bytes) -> Iterator[int]:
    """Count about how many values a JSON *body* has, `STEP_BYTES` at a time.

    The last number is the count, at least; those before it are 0, one a step. Of what is no JSON it is some number.
    """
    count = 0
    for start in range(0, len(body), STEP_BYTES):
        end = start + STEP_BYTES
        count += body.count(b",", start, end) + body.count(b"[", start, end) + body.count(b"{", start, end)
        yield 0
    if count > FEW_VALUES:
        bare, quotes, start = 0, 0, 0
        while start < len(body) and quotes <= STRINGS_MAX:
            step = body[start : start + STEP_BYTES]
            if (len(step) - len(step.rstrip(b"\\"))) % 2:
                step = body[start : start + STEP_BYTES + 1]  # With what its last backslash escapes.
            parts = step.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
            bare += sum(map(_marks, parts[quotes % 2 :: 2]))
            quotes += len(parts) - 1
            start += len(step)
            yield 0
        if quotes <= STRINGS_MAX:
            count = bare
    yield count


def _marks(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")
