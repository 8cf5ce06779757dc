"""SQL of the outbox room; private to it."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from comptoir.kit.db import Tx
from comptoir.outbox.tables import OUTBOX
from comptoir.outbox.types import Attempt, Claimed, Intent, IntentState, StoredIntent

HISTORY_MAX = 16
"""Attempts that an intent remembers, the last ones: all of one time through the schedule."""

_CLAIMED = "id, kind, owner_id, lane, number, payload, attempts, attempts_end, give_up_ms, tried"
_STORED = "id, kind, number, payload, state, created_ms, due_ms, over_ms, attempts, history"
_history = msgspec.json.Decoder(list[Attempt]).decode
_encode = msgspec.json.Encoder().encode

GIVEN_UP = "given up: the last attempt was cut off"


def insert(tx: Tx, intents: Sequence[Intent], *, at_ms: int, give_up_ms: int, attempts_max: int) -> int:
    """Write new intents, due at once; one whose id exists stays as it is. Return how many were new."""
    rows = [
        (
            one.id, one.kind, one.key, one.owner_id, one.lane, one.number, one.payload, IntentState.WAITING,
            int(not one.in_order), 0, attempts_max, at_ms, None, at_ms, give_up_ms, None, "[]",
        )
        for one in intents
    ]  # fmt: skip
    return tx.insert(OUTBOX, rows, ignore_conflicts=True)


def revive(tx: Tx, ids: Sequence[bytes], *, at_ms: int, give_up_ms: int, attempts_max: int, tried: int) -> int:
    """Make those of *ids* that are over wait again, due at once; return how many were."""
    sql = (
        "UPDATE outbox SET state = 'waiting', tried = ?, attempts_end = attempts + ?, due_ms = ?, node_id = NULL, "
        f"give_up_ms = ?, over_ms = NULL WHERE state <> 'waiting' AND id IN ({_marks(ids)})"
    )
    return tx.execute(sql, [tried, attempts_max, at_ms, give_up_ms, *ids])


def claim(tx: Tx, ids: Sequence[bytes], *, node_id: bytes, at_ms: int, until_ms: int) -> list[Claimed]:
    """Claim those of *ids* that are due; return them. One whose attempts are used up without a word is given up."""
    tx.select(OUTBOX, ("id",), ids, lock=True)
    spent = (
        "UPDATE outbox SET state = 'dead', tried = 1, due_ms = NULL, node_id = NULL, over_ms = ?, history = ? "
        f"WHERE state = 'waiting' AND due_ms <= ? AND attempts >= attempts_end AND id IN ({_marks(ids)})"
    )
    last = _encode([Attempt(at_ms, 0, error=GIVEN_UP)]).decode()
    tx.execute(spent, [at_ms, last, at_ms, *ids])
    due = f"SELECT id FROM outbox WHERE state = 'waiting' AND due_ms <= ? AND id IN ({_marks(ids)})"
    found = [bytes(row[0]) for row in tx.fetch(due, [at_ms, *ids])]
    if not found:
        return []
    tx.execute(
        f"UPDATE outbox SET attempts = attempts + 1, due_ms = ?, node_id = ? WHERE id IN ({_marks(found)})",
        [until_ms, node_id, *found],
    )
    rows = tx.fetch(f"SELECT {_CLAIMED} FROM outbox WHERE id IN ({_marks(found)}) ORDER BY number", found)
    return [Claimed(*row[:-1], not row[-1]) for row in rows]  # type: ignore[call-arg]


def report(
    tx: Tx, claimed: Claimed, attempt: Attempt, *, state: IntentState, due_ms: int | None, over_ms: int | None
) -> bool:
    """Write what became of a claim; False: it has lapsed and was claimed again, or the intent is gone."""
    where = "WHERE id = ? AND attempts = ? AND state = 'waiting'"
    rows = tx.fetch(f"SELECT history FROM outbox {where}", [claimed.id, claimed.attempt])
    if not rows:
        return False
    history = [*_history(rows[0][0]), attempt][-HISTORY_MAX:]
    sql = f"UPDATE outbox SET state = ?, tried = 1, due_ms = ?, node_id = NULL, over_ms = ?, history = ? {where}"
    values = [state, due_ms, over_ms, _encode(history).decode(), claimed.id, claimed.attempt]
    return tx.execute(sql, values) == 1


def give_back(tx: Tx, claimed: Claimed, *, due_ms: int) -> bool:
    """End a claim whose attempt was cut off and not reported, so that it does not have to lapse."""
    sql = (
        "UPDATE outbox SET due_ms = ?, node_id = NULL "
        "WHERE id = ? AND attempts = ? AND state = 'waiting' AND node_id IS NOT NULL"
    )
    return tx.execute(sql, [due_ms, claimed.id, claimed.attempt]) == 1


def free_claims(tx: Tx, *, at_ms: int) -> int:
    """End all claims: nobody who could hold one is alive."""
    sql = "UPDATE outbox SET due_ms = ?, node_id = NULL WHERE state = 'waiting' AND node_id IS NOT NULL"
    return tx.execute(sql, [at_ms])


def due(kind: str, at_ms: int, *, but: Collection[bytes], limit: int) -> tuple[str, list[Any]]:
    """Return the query of what is due, longest first, in no lane of *but*: id, lane, tried."""
    lanes = f" AND lane NOT IN ({_marks(but)})" if but else ""
    sql = (
        f"SELECT id, lane, tried FROM outbox WHERE state = 'waiting' AND due_ms <= ? AND kind = ?{lanes} "
        f"ORDER BY due_ms LIMIT {limit:d}"
    )
    return sql, [at_ms, kind, *but]


def counts(tx: Tx, owner_id: bytes, lane: bytes) -> tuple[int, int]:
    """Return how many intents of a lane wait untried, and how many wait in all."""
    sql = "SELECT tried, COUNT(*) FROM outbox WHERE state = 'waiting' AND owner_id = ? AND lane = ? GROUP BY tried"
    found = {int(tried): int(count) for tried, count in tx.fetch(sql, [owner_id, lane])}
    return found.get(0, 0), sum(found.values())


def waiting(tx: Tx, owner_id: bytes, *, most: int) -> int:
    """Return how many intents of an owner wait, counted up to *most*."""
    sql = "SELECT COUNT(*) FROM (SELECT id FROM outbox WHERE state = 'waiting' AND owner_id = ? LIMIT ?) t"
    ((count,),) = tx.fetch(sql, [owner_id, most])
    return int(count)


def park(tx: Tx, owner_id: bytes, lane: bytes) -> int:
    """Keep what waits in a lane from being claimed; what is claimed now is finished."""
    sql = "UPDATE outbox SET due_ms = NULL WHERE state = 'waiting' AND owner_id = ? AND lane = ? AND node_id IS NULL"
    return tx.execute(sql, [owner_id, lane])


def unpark(tx: Tx, owner_id: bytes, lane: bytes, *, at_ms: int, give_up_ms: int, attempts_max: int) -> int:
    """Make what is parked in a lane due, with all its attempts again."""
    sql = (
        "UPDATE outbox SET due_ms = ?, give_up_ms = ?, attempts_end = attempts + ? "
        "WHERE state = 'waiting' AND owner_id = ? AND lane = ? AND due_ms IS NULL"
    )
    return tx.execute(sql, [at_ms, give_up_ms, attempts_max, owner_id, lane])


def drop_lane(tx: Tx, lane: bytes) -> int:
    """Delete every intent of a lane."""
    return tx.execute("DELETE FROM outbox WHERE lane = ?", [lane])


def page(lane: bytes, *, state: str | None, before: bytes | None, limit: int) -> tuple[str, list[Any]]:
    """Return the query of a lane's intents, newest first, older than the intent *before*."""
    where, values = "lane = ?", list[Any]([lane])
    if before is not None:
        where += " AND (created_ms, id) < (SELECT created_ms, id FROM outbox WHERE id = ?)"
        values.append(before)
    if state is not None:
        where += " AND state = ?"
        values.append(state)
    return f"SELECT {_STORED} FROM outbox WHERE {where} ORDER BY created_ms DESC, id DESC LIMIT {limit:d}", values


def one_of(lane: bytes, intent_id: bytes) -> tuple[str, list[Any]]:
    """Return the query of one intent of a lane."""
    return f"SELECT {_STORED} FROM outbox WHERE id = ? AND lane = ?", [intent_id, lane]


def stored(row: tuple[Any, ...]) -> StoredIntent:
    """Return a row of `page` or `one_of`."""
    key, kind, number, payload, state, created_ms, due_ms, over_ms, attempts, history = row
    return StoredIntent(
        bytes(key), kind, number, bytes(payload), IntentState(state), created_ms, due_ms, over_ms, attempts,
        _history(history),
    )  # fmt: skip


def forget_old(tx: Tx, *, before_ms: int, limit: int) -> int:
    """Delete intents that were over before *before_ms*."""
    sql = "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE over_ms IS NOT NULL AND over_ms < ? LIMIT ?)"
    return tx.execute(sql, [before_ms, limit])


def forget_beyond(tx: Tx, lane: bytes, *, kept: int, limit: int) -> int:
    """Delete intents of a lane that are over, but for the *kept* newest."""
    over = "SELECT id FROM outbox WHERE lane = ? AND over_ms IS NOT NULL ORDER BY created_ms DESC, id DESC LIMIT ? OFFSET ?"
    return tx.execute(f"DELETE FROM outbox WHERE id IN ({over})", [lane, limit, kept])


def _marks(values: Collection[Any]) -> str:
    return ",".join("?" * len(values))
