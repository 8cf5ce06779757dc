"""Files in receipts: what went in and came out is listed, what is no file is no receipt, and nothing else changes."""

import json
from typing import Any

import msgspec
import pytest

from comptoir.receipts import Reason, ReceiptFile, ReceiptFiles, build_and_sign, verify
from comptoir.receipts.testing import make_facts
from tests.rooms.receipts.test_verify import COORDINATOR_KEY, FIRST, registry, resealed, sealed

IN = ReceiptFile("a.csv", "ab" * 32, 3)
GOT = ReceiptFile("b.csv", "cd" * 32, 0, fetched=True)
OUT = ReceiptFile("out.png", "ef" * 32, 7)


class TestFiles:
    def test_it_names_them_and_verifies(self) -> None:
        files = ReceiptFiles([IN, GOT], [OUT])

        verdict = verify(sealed(msgspec.structs.replace(make_facts(segments=[FIRST]), files=files)), registry())

        assert verdict.ok and verdict.statement is not None, verdict
        assert verdict.statement.predicate.files == files

    def test_one_without_files_says_nothing_of_them(self) -> None:
        """Its bytes are those that it had before there were files."""
        payload, _ = build_and_sign(make_facts(segments=[FIRST]), COORDINATOR_KEY)

        assert list(json.loads(payload)["predicate"])[-1] == "times"

    @pytest.mark.parametrize(
        "files",
        [
            {"inputs": [{"name": "a", "sha256": "AB" * 32, "size": 1}]},
            {"artifacts": [{"name": "../a", "sha256": "ab" * 32, "size": 1}]},
            {"artifacts": [{"name": "a", "sha256": "ab" * 32, "size": -1}]},
            {"artifacts": [{"name": "a", "size": 1}]},
            {"inputs": "none"},
            [],
        ],
    )
    def test_what_is_no_file_is_no_receipt(self, files: Any) -> None:
        verdict = verify(resealed(lambda statement: statement["predicate"].update(files=files)), registry())

        assert verdict.reason is Reason.NOT_A_RECEIPT
