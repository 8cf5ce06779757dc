"""What the commit record keeps of a transfer that belongs to no job: all of it, so that it can be posted again.

Transfers of a job are in its receipt.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from comptoir.ledger.types import Transfer

TRANSFER_NOTE = b"t"
"""First byte of such a note; other rooms have others, and stored ones never change."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, bytes, bytes, int, str, int, int | None]).decode


def transfer_note(row: Sequence[Any]) -> bytes:
    """Return the note of a row of ``transfers`` without a job; about 80 bytes."""
    transfer, debit, credit, amount, kind, _, at_ms, promo = row
    return TRANSFER_NOTE + _encode((transfer, debit, credit, amount, kind, at_ms, promo))


def read_transfer_note(note: bytes) -> Transfer | None:
    """Return the transfer that a note says; None: it is about something else."""
    if note[:1] != TRANSFER_NOTE:
        return None
    try:
        transfer, debit, credit, amount, kind, at_ms, promo = _decode(memoryview(note)[1:])
    except msgspec.MsgspecError:
        return None
    return Transfer(transfer, debit, credit, amount, kind, None, at_ms, promo)
