"""What the commit record keeps of a receipt: whose it is, and the hash of what was signed."""

import hashlib
from typing import NamedTuple

RECEIPT_NOTE = b"r"
"""First byte of such a note; other rooms have others, and stored ones never change."""


class ReceiptNote(NamedTuple):
    """A receipt that was confirmed."""

    job_id: bytes
    payload_sha256: bytes


def receipt_note(job_id: bytes, payload: bytes) -> bytes:
    """Return the note of a receipt: 49 bytes, 2 us."""
    return RECEIPT_NOTE + job_id + hashlib.sha256(payload).digest()


def read_receipt_note(note: bytes) -> ReceiptNote | None:
    """Return what a note says; None: it is not about a receipt."""
    return ReceiptNote(note[1:17], note[17:]) if note[:1] == RECEIPT_NOTE and len(note) == 49 else None
