"""Receipts of version 1 verify for ever: each written, and each refused, by the version that made them, with its
verdict."""

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir.receipts import KeyRegistry, read_registry, verify

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "golden" / "version1.json").read_text())


def registry_in(case: dict[str, Any]) -> KeyRegistry:
    return read_registry(msgspec.json.encode({"keys": case["keys"]}))


class TestVersion1:
    @pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
    def test_the_verdict_is_what_it_was(self, case: dict[str, Any]) -> None:
        verdict = verify(base64.b64decode(case["envelope"]), registry_in(case))

        assert verdict.reason == case["reason"], verdict.detail

    @pytest.mark.parametrize(
        ("name", "units"),
        [
            ("two hosts, signed", [("token_in", 10, 0, True), ("token_out", 5, 1_000_000, False)]),
            ("a run of a container", [("run", 1, 1_000_000, False)]),
        ],
    )
    def test_what_it_says_is_told_in_units(self, name: str, units: list[tuple[object, ...]]) -> None:
        case = next(case for case in CASES if case["case"] == name)

        statement = verify(base64.b64decode(case["envelope"]), registry_in(case)).statement

        assert statement is not None
        assert [(unit.unit, unit.count, unit.rate, unit.once) for unit in statement.predicate.units] == units
        assert statement.predicate_type == "urn:comptoir:receipt:v1"
