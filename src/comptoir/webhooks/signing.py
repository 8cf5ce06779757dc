"""Sign messages as Standard Webhooks says (standardwebhooks.com): HMAC-SHA256 over id, time and body."""

import base64
import hashlib
import hmac
import os

PREFIX = "whsec_"
SECRET_BYTES = 32
"""The specification wants 24 to 64."""


def new_secret() -> bytes:
    """Return a fresh secret."""
    return os.urandom(SECRET_BYTES)


def secret_text(secret: bytes) -> str:
    """Return *secret* as its owner gets it: ``whsec_`` and base64."""
    return PREFIX + base64.b64encode(secret).decode()


def signature(secret: bytes, *, message_id: str, at_s: int, body: bytes) -> str:
    """Return the value of ``webhook-signature`` for one secret: ``v1,`` and base64."""
    signed = hmac.digest(secret, b"%b.%d.%b" % (message_id.encode(), at_s, body), hashlib.sha256)
    return "v1," + base64.b64encode(signed).decode()
