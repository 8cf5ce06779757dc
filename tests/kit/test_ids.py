"""Identifiers: time-ordered, never the same twice, and random enough that nobody guesses one."""

import os
import time
import uuid

import pytest

from comptoir.kit import ids
from comptoir.kit.ids import RANDOM_POOL_BYTES, new_id, oldest_id, parse, public


class TestNewId:
    def test_it_is_a_uuid_of_version_7_with_the_time_it_was_made(self) -> None:
        before_ms = time.time_ns() // 1_000_000

        found = uuid.UUID(bytes=new_id())

        assert (found.version, found.variant) == (7, uuid.RFC_4122)
        assert before_ms <= found.int >> 80 <= time.time_ns() // 1_000_000
        assert found.bytes >= oldest_id(before_ms)

    def test_they_ascend_also_where_the_clock_steps_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = [new_id() for _ in range(RANDOM_POOL_BYTES)]
        monkeypatch.setattr(time, "time_ns", lambda: 0)
        made += [new_id() for _ in range(100)]

        assert made == sorted(set(made))

    @pytest.mark.parametrize(("drawn", "bits"), [(b"\0", 0), (b"\xff", 74)])
    def test_all_but_time_version_and_variant_is_random(
        self, monkeypatch: pytest.MonkeyPatch, drawn: bytes, bits: int
    ) -> None:
        monkeypatch.setattr(os, "urandom", lambda size: drawn * size)
        monkeypatch.setattr(ids, "_sequence", ids._Sequence())

        made = int.from_bytes(new_id(), "big") & (1 << 80) - 1

        assert (made & 0x0FFF_3FFF_FFFF_FFFF_FFFF).bit_count() == bits


class TestPublic:
    def test_what_is_spelled_is_read_back_under_its_prefix_alone(self) -> None:
        made = new_id()

        assert parse("job", public("job", made)) == made
        assert parse("att", public("job", made)) is None
