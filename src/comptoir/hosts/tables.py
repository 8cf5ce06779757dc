"""The table of the hosts room."""

from comptoir.kit.db import Table

HOSTS = Table(
    "hosts",
    {
        "id": "id",
        "owner_id": "id?",
        "gpu": "text",
        "vram_mib": "int",
        "region": "text",
        "tier": "text",
        "backend": "text",
        "transport": "text",
        "endpoint_url": "text?",
        "models": "bytes",
        "slots": "int",
        "status": "text",
        "public_key": "bytes?",
        "created_ms": "int",
        "last_seen_ms": "int",
        "jobs_done": "int",
        "jobs_failed": "int",
        "jobs_lost": "int",
        "tokens_done": "int",
        "good_milli": "int",
        "bad_milli": "int",
        "outcome_ms": "int",
        "retired_ms": "int?",
        "speaks": "text?",
        "capacity": "bytes?",
        "evidence": "bytes?",
        "address_block": "text?",
    },
    key=("id",),
    indexes=(("owner_id",),),
)
"""``models`` (a list of `link.ModelOffer`) and ``capacity`` (`routing.Capacity`) are JSON. ``speaks`` is NULL for hosts
with a link, and for those registered before the column existed, which use `INFRINTIA`. ``evidence`` is msgpack
(`hosts.reputation`). ``address_block`` is NULL for hosts with an owner, and for those registered before the column
existed. Earnings are in the ledger."""

TABLES = (HOSTS,)
