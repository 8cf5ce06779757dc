"""Tables of the ledger; private to the room."""

from comptoir.kit.db import Table

ACCOUNTS = Table(
    "accounts",
    {"id": "id", "kind": "text", "balance_uusd": "int", "held_uusd": "int", "created_ms": "int", "last_event": "int?"},
    key=("id",),
)
TRANSFERS = Table(
    "transfers",
    {
        "id": "id",
        "debit_id": "id",
        "credit_id": "id",
        "amount_uusd": "int",
        "kind": "text",
        "job_id": "id?",
        "created_ms": "int",
    },
    key=("id",),
    indexes=(("debit_id", "id"), ("credit_id", "id")),
)
HOLDS = Table(
    "holds",
    {"job_id": "id", "account_id": "id", "amount_uusd": "int", "settled_uusd": "int", "state": "text"},
    key=("job_id",),
)
TABLES = (ACCOUNTS, TRANSFERS, HOLDS)
