"""Seal secrets that have to be kept readable: encrypted (XSalsa20-Poly1305) with a key that is kept elsewhere."""

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox


class SealBroken(Exception):
    """What was sealed with another key, or changed since, can't be opened."""


class Seal:
    """Seals with one key; prints nothing of it."""

    __slots__ = ("_box",)

    def __init__(self, key: bytes) -> None:
        """Take a secret *key* of 32 bytes."""
        self._box = SecretBox(key)

    def close(self, secret: bytes) -> bytes:
        """Return *secret* sealed, 40 bytes longer; never the same twice."""
        return bytes(self._box.encrypt(secret))

    def open(self, sealed: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            SealBroken: with another key, or it was changed.
        """
        try:
            return self._box.decrypt(sealed)
        except (CryptoError, ValueError) as error:
            raise SealBroken("sealed with another key, or changed since") from error
