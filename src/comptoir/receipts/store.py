"""SQL of the receipts room; functions over a transaction or the reading connection."""

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from comptoir.kit.db import Database, Tx
from comptoir.receipts.notes import receipt_note
from comptoir.receipts.tables import RECEIPTS, SIGNING_KEYS
from comptoir.receipts.types import HolderKind, PublishedKey, Receipt

T = TypeVar("T")


def insert_rows(tx: Tx, rows: Sequence[Receipt]) -> int:
    """Store *rows* inside another room's command; return how many were new.

    Idempotent: a job that has a receipt keeps it.
    """
    tx.notes.extend([receipt_note(row.job_id, row.payload) for row in rows])
    values = [(row.job_id, bytes.fromhex(row.keyid), row.payload, row.signature) for row in rows]
    return tx.insert(RECEIPTS, values, ignore_conflicts=True)


async def receipt_of(db: Database, job_id: bytes) -> Receipt | None:
    """Return the receipt of one job."""
    row = await db.fetch_point(RECEIPTS, ("job_id", "keyid", "payload", "signature"), (job_id,))
    return Receipt(row[0], row[1].hex(), row[2], row[3]) if row is not None else None


async def payload_hashes(db: Database, job_ids: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the SHA-256 of the stored payloads of *job_ids* (at most 1,000), by job."""
    rows = await db.fetch_keys(RECEIPTS, ("job_id", "payload"), job_ids)
    return {bytes(job_id): hashlib.sha256(payload).digest() for job_id, payload in rows}


def payloads_in(tx: Tx, job_ids: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the signed statements of those of *job_ids* that have a receipt, inside a command."""
    return {bytes(job_id): bytes(payload) for job_id, payload in tx.select(RECEIPTS, ("job_id", "payload"), job_ids)}


async def latest(db: Database, limit: int, before: bytes | None) -> list[Receipt]:
    """Return the receipts of the newest jobs below *before*, newest first."""
    where, params = ("WHERE job_id < ? ", (before, limit)) if before is not None else ("", (limit,))
    rows = await db.fetch(
        f"SELECT job_id, keyid, payload, signature FROM receipts {where}ORDER BY job_id DESC LIMIT ?", params
    )
    return [Receipt(job_id, keyid.hex(), payload, signature) for job_id, keyid, payload, signature in rows]


_KEY_COLUMNS = "keyid, public_key, holder_kind, holder, valid_from_ms, revoked_ms"


def key_in(tx: Tx, keyid: str) -> PublishedKey | None:
    """Return one key of the registry."""
    rows = tx.fetch(f"SELECT {_KEY_COLUMNS} FROM signing_keys WHERE keyid = ?", (bytes.fromhex(keyid),))
    return _key(rows[0]) if rows else None


def insert_key(tx: Tx, key: PublishedKey) -> None:
    """Add a key to the registry."""
    tx.insert(
        SIGNING_KEYS,
        [
            (
                bytes.fromhex(key.keyid),
                bytes.fromhex(key.public_key),
                key.holder_kind.value,
                key.holder,
                key.valid_from_ms,
                key.revoked_ms,
            )
        ],
    )


def set_revoked(tx: Tx, keyid: str, at_ms: int) -> int:
    """Mark a key revoked, unless it is already; return the rows touched."""
    return tx.execute(
        "UPDATE signing_keys SET revoked_ms = ? WHERE keyid = ? AND revoked_ms IS NULL", (at_ms, bytes.fromhex(keyid))
    )


async def all_keys(db: Database) -> list[PublishedKey]:
    """Return the whole registry, oldest key first."""
    return await read_keys(db, list)


async def read_keys(db: Database, render: Callable[[list[PublishedKey]], T]) -> T:
    """Return what *render* makes of the whole registry, oldest key first; in the thread that reads it."""
    sql = f"SELECT {_KEY_COLUMNS} FROM signing_keys ORDER BY valid_from_ms, keyid"
    return await db.fetch_snapshot(lambda fetch: render([_key(row) for row in fetch(sql)]))


async def keys_of(db: Database, holder: str) -> list[PublishedKey]:
    """Return one holder's keys, oldest first."""
    return [
        _key(row)
        for row in await db.fetch(
            f"SELECT {_KEY_COLUMNS} FROM signing_keys WHERE holder = ? ORDER BY valid_from_ms, keyid", (holder,)
        )
    ]


def _key(row: tuple[bytes, bytes, str, str, int, int | None]) -> PublishedKey:
    keyid, public_key, kind, holder, valid_from_ms, revoked_ms = row
    return PublishedKey(keyid.hex(), public_key.hex(), HolderKind(kind), holder, valid_from_ms, revoked_ms)
