"""Values of a msgpack message, counted without making them."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from comptoir.kit.msgpack import values_within

PLAIN = (
    some.none() | some.booleans() | some.integers(-(2**63), 2**64 - 1) | some.floats() | some.text() | some.binary()
    | some.builds(msgspec.msgpack.Ext, some.integers(0, 9), some.binary(max_size=20))
)  # fmt: skip
ANY = some.recursive(PLAIN, lambda inner: some.lists(inner) | some.dictionaries(some.text(max_size=3), inner))


def count(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(1 + count(one) for one in value.values())
    return 1 + sum(map(count, value)) if isinstance(value, list) else 1


class TestValuesWithin:
    @settings(max_examples=40)
    @given(ANY)
    def test_it_counts_each_value_once(self, value: Any) -> None:
        data = msgspec.msgpack.encode(value)

        assert values_within(data, count(value))
        assert not values_within(data, count(value) - 1)

    @pytest.mark.parametrize("size", [15, 16, 255, 256, 65_535, 65_536])
    def test_of_every_size(self, size: int) -> None:
        value = [["x"] * size, {str(number): number for number in range(size)}, "y" * size, b"z" * size]
        data = msgspec.msgpack.encode(value)

        assert values_within(data, count(value))
        assert not values_within(data, count(value) - 1)

    @pytest.mark.parametrize("data", [b"", b"\xdd", b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xffxx", b"\xc1"])
    def test_what_is_cut_short_is_left_to_the_decoder(self, data: bytes) -> None:
        assert values_within(data, 2)
