"""Signed heads: only one under our own key counts, as it was signed."""

import base64
import json

import pytest

from comptoir.kit.signing import SigningKey
from comptoir.receipts.heads import SIGNED_HEAD_BYTES_MAX, SignedHead, read_head, sign_head

KEY = SigningKey(bytes(32))
HEAD = SignedHead("ab" * 16, 3, 2**62, "cd" * 32, 1_796_000_000_000)


def altered(statement: bytes, **changes: object) -> bytes:
    """Return *statement* with fields of what it says changed, under the old signature."""
    envelope = json.loads(statement)
    said = json.loads(base64.b64decode(envelope["payload"])) | changes
    envelope["payload"] = base64.b64encode(json.dumps(said).encode()).decode()
    return json.dumps(envelope).encode()


class TestReadHead:
    def test_what_was_signed_is_read(self) -> None:
        statement = sign_head(HEAD, KEY)

        assert read_head(statement, KEY) == HEAD
        assert len(statement) < SIGNED_HEAD_BYTES_MAX

    @pytest.mark.parametrize(
        "statement",
        [
            sign_head(HEAD, SigningKey(bytes(31) + b"1")),
            altered(sign_head(HEAD, KEY), entries=5),
            altered(sign_head(HEAD, KEY)),
            sign_head(HEAD, KEY).replace(b"head.v1", b"head.v2"),
            sign_head(HEAD, KEY)[:-1],
            sign_head(HEAD, KEY) + b" " * SIGNED_HEAD_BYTES_MAX,
            sign_head(SignedHead("ab" * 16, 3, -1, "cd" * 32, 1), KEY),
            sign_head(SignedHead("no id", 3, 1, "cd" * 32, 1), KEY),
            b"",
            b"null",
            b"\xff" * 100,
            b"[" * 1000,
        ],
    )
    def test_anything_else_is_none(self, statement: bytes) -> None:
        assert read_head(statement, KEY) is None
