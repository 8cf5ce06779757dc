"""Signed heads: how far a coordinator's commit record was at one moment, in a DSSE envelope, to be kept by others.

Whoever holds one can show that the coordinator has confirmed so much. Only heads under a coordinator's own key count.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from comptoir.kit.signing import SigningKey, is_signed
from comptoir.link import pae

HEAD_PAYLOAD_TYPE = "application/vnd.comptoir.head.v1+json"

SIGNED_HEAD_BYTES_MAX = 1024
"""A signed head has 500 bytes; anything larger is none."""


class SignedHead(msgspec.Struct, frozen=True):
    """What is signed; field order is the order in the signed bytes."""

    record: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    """Id of the commit record, 32 hexadecimal digits."""
    epoch: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    """Begins at 0; one more each time an operator accepts a loss."""
    entries: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    """Notes confirmed in this epoch."""
    head: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    """SHA-256 (hex) over them."""
    at_ms: int
    """When it was signed, milliseconds since 1970 UTC."""


class _HeadSignature(msgspec.Struct, frozen=True):
    keyid: str
    sig: bytes


class _HeadEnvelope(msgspec.Struct, frozen=True, rename={"payload_type": "payloadType"}):
    payload: bytes
    payload_type: str
    signatures: tuple[_HeadSignature]


_encode = msgspec.json.Encoder().encode
_decode_envelope = msgspec.json.Decoder(_HeadEnvelope).decode
_decode_head = msgspec.json.Decoder(SignedHead).decode


def sign_head(head: SignedHead, key: SigningKey) -> bytes:
    """Return the envelope of *head* (JSON); 20 us."""
    payload = _encode(head)
    signature = _HeadSignature(key.keyid, key.sign(pae(HEAD_PAYLOAD_TYPE, payload)))
    return _encode(_HeadEnvelope(payload, HEAD_PAYLOAD_TYPE, (signature,)))


def read_head(statement: bytes, key: SigningKey) -> SignedHead | None:
    """Return what *statement* says if it was signed with *key*; None: it was not, or is no signed head. 60 us."""
    if len(statement) > SIGNED_HEAD_BYTES_MAX:
        return None
    try:
        envelope = _decode_envelope(statement)
        (signature,) = envelope.signatures
        signed = pae(HEAD_PAYLOAD_TYPE, envelope.payload)
        if envelope.payload_type != HEAD_PAYLOAD_TYPE or not is_signed(signed, signature.sig, key.public_key):
            return None
        return _decode_head(envelope.payload)
    except (msgspec.MsgspecError, RecursionError):
        return None
