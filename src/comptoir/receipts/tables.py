"""Tables of the receipts room."""

from comptoir.kit.db import Table

RECEIPTS = Table(
    "receipts",
    {"job_id": "id", "keyid": "bytes", "payload": "bytes", "signature": "bytes"},
    key=("job_id",),
)
"""One row per settled job; the receipt's public id is the job's with another prefix, so no second index is needed.
Job ids are time-ordered, so the key's order is the order of submission."""

SIGNING_KEYS = Table(
    "signing_keys",
    {
        "keyid": "bytes",
        "public_key": "bytes",
        "holder_kind": "text",
        "holder": "text",
        "valid_from_ms": "int",
        "revoked_ms": "int?",
    },
    key=("keyid",),
    indexes=(("holder",),),
)
"""Every key that ever signed; keys are revoked and never deleted, so that old receipts can be verified."""

EVIDENCE = Table(
    "evidence",
    {
        "id": "id",
        "host_id": "id",
        "job_id": "id",
        "at_ms": "int",
        "keyid": "bytes",
        "stated": "bytes",
        "signature": "bytes",
        "arrived_keyid": "bytes",
        "arrived": "bytes",
        "arrived_signature": "bytes",
        "used_ms": "int?",
    },
    key=("id",),
    indexes=(("host_id",),),
)
"""Statements of hosts that what arrived contradicts; the id is the attempt's. ``stated`` is what the host signed,
``arrived`` what the coordinator did, both JSON of `link.Segment`."""

TABLES = (RECEIPTS, SIGNING_KEYS, EVIDENCE)
