"""SQL of the hosts room; private to it."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import msgspec

from comptoir.hosts.shapes import in_shape, shape_of
from comptoir.hosts.tables import HOSTS
from comptoir.hosts.types import OFFLINE, HostRow, LastHeard, StatusChange
from comptoir.kit.db import Database, Table, Tx, in_words
from comptoir.kit.ids import public
from comptoir.link import ModelOffer
from comptoir.routing import NO_CAPACITY, Capacity

_encode = msgspec.json.Encoder().encode
_decode_capacity = msgspec.json.Decoder(Capacity).decode
_decode_models = msgspec.json.Decoder(tuple[ModelOffer, ...]).decode

DOUBTED_MAX = 32
"""Hosts of one owner that are compared when he registers another: the worst is among those with most against them,
unless more of his have as much, and then it stands little better."""

JSON = frozenset(("models", "capacity"))
WRITTEN_BEHIND = (
    "gpu",
    "vram_mib",
    "models",
    "slots",
    "status",
    "last_seen_ms",
    "jobs_done",
    "jobs_failed",
    "jobs_lost",
    "tokens_done",
    "good_milli",
    "bad_milli",
    "outcome_ms",
    "evidence",
)
assert tuple(field.name for field in fields(HostRow)) == ("id", "owner_id", *HOSTS.names[2:]) == HOSTS.names


def _values(row: HostRow, columns: Sequence[str]) -> tuple[Any, ...]:
    return tuple(_encode(getattr(row, name)) if name in JSON else getattr(row, name) for name in columns)


def insert_host(tx: Tx, row: HostRow) -> None:
    """Store a new host; call within the command that also stores its key."""
    tx.insert(HOSTS, [_values(row, HOSTS.names)])
    tx.notes.append(in_words(f"host {public('host', row.id)}"))


def write_behind(tx: Tx, rows: Sequence[HostRow]) -> tuple[int, list[StatusChange]]:
    """Update stored offers, times and statistics; ids must be distinct.

    Returns how many rows existed, and which of them, having an owner, had another status.
    """
    # Locked in one order first: another coordinator may be writing some of the same hosts.
    before: dict[bytes, str] = dict(tx.select(HOSTS, ("id", "status"), [row.id for row in rows], lock=True))
    written = tx.update(HOSTS, WRITTEN_BEHIND, [(row.id, *_values(row, WRITTEN_BEHIND)) for row in rows])
    changes = [
        StatusChange(row.id, row.owner_id, row.status)
        for row in rows
        if row.owner_id is not None and before.get(row.id, row.status) != row.status
    ]
    return written, changes


def write_gone(tx: Tx, host_ids: Sequence[bytes], *, before_ms: int) -> list[StatusChange]:
    """Set those of *host_ids* offline that are stored as something else and were last heard before *before_ms*.

    Nothing else is written: who has not heard of a host for long has old figures of it. Returns those with an owner.
    """
    columns = ("id", "owner_id", "status", "last_seen_ms")
    rows = tx.select(HOSTS, columns, host_ids, lock=True)
    gone = [
        (host_id, owner_id) for host_id, owner_id, status, seen_ms in rows if status != OFFLINE and seen_ms < before_ms
    ]
    tx.update(HOSTS, ("status",), [(host_id, OFFLINE) for host_id, _ in gone])
    return [StatusChange(host_id, owner_id, OFFLINE) for host_id, owner_id in gone if owner_id is not None]


def host_rows(host_ids: Sequence[bytes]) -> tuple[Table, Sequence[bytes]]:
    """Return what `write_behind` and `write_gone` lock."""
    return HOSTS, host_ids


def retire(tx: Tx, host_id: bytes, now_ms: int) -> None:
    """Mark a host as retired, in a column of its own so that no concurrent flush can undo it."""
    tx.update(HOSTS, ("retired_ms",), [(host_id, now_ms)])


def read_for_update(tx: Tx, host_id: bytes) -> tuple[int | None, int] | None:
    """Return when a host was retired (None: it is not) and last heard, and lock its row; None: it never registered."""
    rows = tx.select(HOSTS, ("retired_ms", "last_seen_ms"), [host_id], lock=True)
    return (rows[0][0], rows[0][1]) if rows else None


def row_of(host_id: bytes) -> tuple[Table, list[bytes]]:
    """Return what `read_for_update` locks."""
    return HOSTS, [host_id]


async def read_all(db: Database) -> list[HostRow]:
    """Read every host that is not retired, oldest first, as offline: after a start none is connected yet."""
    rows = await db.fetch(f"SELECT {', '.join(HOSTS.names)} FROM hosts WHERE retired_ms IS NULL ORDER BY id")
    return [_row(row) for row in rows]


async def last_heard(db: Database, after: bytes, limit: int) -> list[LastHeard]:
    """Return hosts that are not retired with an id after *after*, in the order of their ids."""
    rows = await db.fetch(
        "SELECT id, owner_id, created_ms, last_seen_ms FROM hosts WHERE id > ? AND retired_ms IS NULL "
        f"ORDER BY id LIMIT {limit}",
        [after],
    )
    return [LastHeard(row[0], row[1], max(row[2], row[3])) for row in rows]


async def retired_before(db: Database, host_ids: Sequence[bytes], at_ms: int) -> set[bytes]:
    """Return those of *host_ids* that were retired at *at_ms* or earlier."""
    marks = ",".join("?" * len(host_ids))
    sql = f"SELECT id FROM hosts WHERE retired_ms <= ? AND id IN ({marks})"
    return {row[0] for row in await db.fetch(sql, [at_ms, *host_ids])}


async def read_one(db: Database, host_id: bytes) -> HostRow | None:
    """Read one host, retired or not; only the fleet knows its current status."""
    row = await db.fetch_point(HOSTS, HOSTS.names, (host_id,))
    return _row(row) if row is not None else None


async def read_doubted(db: Database, owner_id: bytes) -> list[HostRow]:
    """Read the owner's hosts, retired ones too, against which there is most evidence; at most `DOUBTED_MAX`."""
    sql = (
        f"SELECT {', '.join(HOSTS.names)} FROM hosts WHERE owner_id = ? AND bad_milli > 0 "
        f"ORDER BY bad_milli DESC LIMIT {DOUBTED_MAX}"
    )
    return [_row(row) for row in await db.fetch(sql, [owner_id])]


def _row(row: tuple[Any, ...]) -> HostRow:
    values = dict(zip(HOSTS.names, row, strict=True))
    values["speaks"] = shape_of(values["transport"], values["speaks"])
    values["models"] = in_shape(values["speaks"], _decode_models(values["models"]))
    values["capacity"] = _decode_capacity(values["capacity"]) if values["capacity"] else NO_CAPACITY
    values["status"] = OFFLINE
    return HostRow(**values)
