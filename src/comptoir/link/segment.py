"""The statement that a host signs for its part of an answer, and DSSE's pre-authentication encoding."""

import msgspec

SEGMENT_PAYLOAD_TYPE = "application/vnd.comptoir.segment.v1+json"


class Segment(msgspec.Struct, frozen=True):
    """One attempt's contribution to a job; field order is the order on the wire, so the bytes are canonical."""

    job: str
    """Public job id, ``job_<hex>``."""
    attempt: str
    """Public attempt id, ``att_<hex>``; the lease of the link."""
    host: str
    """Public host id, ``host_<hex>``."""
    model: str
    """The model's name as the host served it."""
    input_sha256: str
    """SHA-256 (hex) of the request body as sent over the link."""
    first_frame: int
    """Sequence number of the first frame of this segment (inclusive)."""
    end_frame: int
    """Sequence number after the last frame (exclusive)."""
    chain: str
    """Running hash (hex) after the last frame, see :mod:`comptoir.link.running_hash`."""
    prompt_tokens: int
    """Tokens of the prompt as the engine counted them."""
    completion_tokens: int
    """Tokens delivered in this segment."""
    finish_reason: str
    """``stop``, ``length``, ``tool_calls``, ``content_filter``, ``cancelled`` or empty."""


_encode = msgspec.json.Encoder().encode


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding v1 of *payload*, the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def segment_bytes(segment: Segment) -> bytes:
    """Return the bytes that a host signs for *segment* (already in pre-authentication encoding)."""
    return pae(SEGMENT_PAYLOAD_TYPE, _encode(segment))
