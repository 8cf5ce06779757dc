"""Receipts: the signed statement about a settled job, the keys to verify it with, and evidence against hosts.

Owns: ``receipts``, ``signing_keys`` and ``evidence``. A receipt is an in-toto Statement (JSON) in a DSSE envelope: the
host signs its segment of the answer, the coordinator the whole. It names amounts, hashes and times, never a prompt or
an answer.

Invariant: one receipt per job, never changed; its public id is the job's with the prefix ``rcpt``. A signing key has
one holder for ever; keys are revoked and never deleted. New receipts are of version 2, counted in the units of what was
sold; those of version 1 verify for ever. Verification trusts the registry, never a key in a receipt.

Units: micro-dollars, units of a kind, milliseconds since 1970 UTC; hashes and key ids are hex, signatures Ed25519.
Knows: `kinds`, whose rule says what may be billed. Settlement passes it the facts; `verify` works offline.
"""

from comptoir.receipts.build import build_and_sign, statement_bytes
from comptoir.receipts.errors import BadRegistry, KeyTaken, UnknownExhibit, UnknownKey, UnknownReceipt
from comptoir.receipts.evidence import (
    EXHIBITS_BYTES_MAX,
    ExhibitList,
    ExhibitVerdict,
    contradiction,
    exhibit_rows,
    use_exhibit,
    verify_exhibits,
)
from comptoir.receipts.heads import SignedHead
from comptoir.receipts.notes import ReceiptNote, read_receipt_note
from comptoir.receipts.service import Receipts
from comptoir.receipts.store import insert_rows, payloads_in
from comptoir.receipts.tables import TABLES
from comptoir.receipts.types import (
    COORDINATOR,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    AuthenticatedBy,
    Check,
    HolderKind,
    InTotoStatement,
    KeyRegistry,
    Predicate,
    PublishedKey,
    Reason,
    Receipt,
    ReceiptFacts,
    ReceiptFile,
    ReceiptFiles,
    ReceiptTransfer,
    SegmentEntry,
    SegmentFacts,
    UnitEntry,
    Verdict,
)
from comptoir.receipts.verify import (
    ENVELOPE_BYTES_MAX,
    envelope,
    predicate_of,
    read_registry,
    registry_json,
    registry_of,
    verify,
    verify_own,
)

__all__ = [
    "COORDINATOR",
    "ENVELOPE_BYTES_MAX",
    "EXHIBITS_BYTES_MAX",
    "PAYLOAD_TYPE",
    "PREDICATE_TYPE",
    "TABLES",
    "AuthenticatedBy",
    "BadRegistry",
    "Check",
    "ExhibitList",
    "ExhibitVerdict",
    "HolderKind",
    "InTotoStatement",
    "KeyRegistry",
    "KeyTaken",
    "Predicate",
    "PublishedKey",
    "Reason",
    "Receipt",
    "ReceiptFacts",
    "ReceiptFile",
    "ReceiptFiles",
    "ReceiptNote",
    "ReceiptTransfer",
    "Receipts",
    "SegmentEntry",
    "SegmentFacts",
    "SignedHead",
    "UnitEntry",
    "UnknownExhibit",
    "UnknownKey",
    "UnknownReceipt",
    "Verdict",
    "build_and_sign",
    "contradiction",
    "envelope",
    "exhibit_rows",
    "insert_rows",
    "payloads_in",
    "predicate_of",
    "read_receipt_note",
    "read_registry",
    "registry_json",
    "registry_of",
    "statement_bytes",
    "use_exhibit",
    "verify",
    "verify_exhibits",
    "verify_own",
]
