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

TABLES = (RECEIPTS, SIGNING_KEYS)
