"""Tables of the ledger; private to the room."""

from comptoir.kit.db import Table

ACCOUNTS = Table(
    "accounts",
    {
        "id": "id",
        "kind": "text",
        "balance_uusd": "int",
        "held_uusd": "int",
        "created_ms": "int",
        "last_event": "int?",
        "promo_uusd": "int?",
        "asked_events": "int?",
    },
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
        "promo_uusd": "int?",
    },
    key=("id",),
    indexes=(("debit_id", "id"), ("credit_id", "id")),
)
HOLDS = Table(
    "holds",
    {
        "job_id": "id",
        "account_id": "id",
        "amount_uusd": "int",
        "settled_uusd": "int",
        "state": "text",
        "own_money": "int?",
    },
    key=("job_id",),
)
PROMO_CORRECTIONS = Table("promo_corrections", {"id": "id", "account_id": "id", "amount_uusd": "int"}, key=("id",))
"""What became promotional, or ceased to be (negative), without a transfer: credit given before promotions were kept
apart, and promotional credit that a coordinator of such a version spent."""

BONDS_TABLE = Table(
    "bonds",
    {
        "host_id": "id",
        "owner_id": "id",
        "amount_uusd": "int",
        "state": "text",
        "created_ms": "int",
        "closed_ms": "int?",
    },
    key=("host_id",),
    partial=((("host_id",), "state = 'open'"),),
)
"""What owners put up for their hosts, one row a host; never deleted."""

TABLES = (ACCOUNTS, TRANSFERS, HOLDS, PROMO_CORRECTIONS, BONDS_TABLE)
"""``promo_uusd`` is NULL in rows of coordinators that did not keep promotions apart, as is ``holds.own_money``.
``asked_events``: bits of the events on request (`events.ON_REQUEST`) that its owner asks for; NULL: none."""
