"""Signed URLs: who has one may read one file until a moment, at any coordinator of the trading post."""

import hashlib
import hmac

from comptoir.blobs.errors import FileLinkRefused

LINK_S_MAX = 7 * 24 * 3600
"""Longest time for which a URL is signed."""


def signature(secret: bytes, file_id: bytes, until_ms: int) -> str:
    """Return the signature of *file_id* until *until_ms* (0 to 2^63 - 1): 64 hexadecimal digits."""
    return hmac.digest(secret, b"file\0" + file_id + until_ms.to_bytes(8, "big"), hashlib.sha256).hex()


def check(secret: bytes, file_id: bytes, *, until_ms: int, given: str, now_ms: int) -> None:
    """Check a signature first, so that nothing is told about one that is not ours.

    Raises:
        FileLinkRefused: it is not ours, or *until_ms* has passed.
    """
    if not hmac.compare_digest(signature(secret, file_id, until_ms).encode(), given.encode()):
        raise FileLinkRefused("was not signed here")
    if until_ms <= now_ms:
        raise FileLinkRefused("has expired")
