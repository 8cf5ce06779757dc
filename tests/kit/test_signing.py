"""Keys: what was signed verifies, and a private key's file is only its owner's."""

import stat
import threading
from pathlib import Path

import pytest

from comptoir.kit.signing import KeyFileError, SigningKey, is_signed, keyid_of, load_or_create


class TestSigningKey:
    def test_follows_rfc_8032(self) -> None:
        """Test 2 of RFC 8032, section 7.1."""
        key = SigningKey(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))

        assert key.public_key.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        assert key.sign(b"\x72").hex() == (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        )

    def test_only_the_holder_of_the_key_signs(self) -> None:
        key, other = SigningKey.generate(), SigningKey.generate()
        signature = key.sign(b"text")

        assert is_signed(b"text", signature, key.public_key)
        assert not is_signed(b"texT", signature, key.public_key)
        assert not is_signed(b"text", signature, other.public_key)
        assert not is_signed(b"text", signature[:-1], key.public_key)
        assert not is_signed(b"text", signature, b"")

    def test_does_not_print_its_secret(self) -> None:
        key = SigningKey.generate()

        assert key.seed().hex() not in repr(key)
        assert key.keyid == keyid_of(key.public_key)


class TestLoadOrCreate:
    def test_makes_a_private_file_and_reads_the_same_key_again(self, tmp_path: Path) -> None:
        path = tmp_path / "signing.key"

        made, read = load_or_create(path), load_or_create(path)

        assert made.keyid == read.keyid
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [path]

    def test_a_file_others_may_read_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "signing.key"
        load_or_create(path)
        path.chmod(0o644)

        with pytest.raises(KeyFileError, match="chmod 600"):
            load_or_create(path)

    @pytest.mark.parametrize("text", ["", "not hex", "00" * 31, "00" * 33])
    def test_a_file_with_something_else_is_refused(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "signing.key"
        path.write_text(text)
        path.chmod(0o600)

        with pytest.raises(KeyFileError):
            load_or_create(path)

    def test_two_that_start_at_once_get_one_key(self, tmp_path: Path) -> None:
        keyids: list[str] = []
        threads = [
            threading.Thread(target=lambda: keyids.append(load_or_create(tmp_path / "signing.key").keyid))
            for _ in range(4)
        ]

        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(keyids) == 4
        assert len(set(keyids)) == 1
