"""Rows of numbered events: the tag is the type, the subject's id has a column, the other fields are JSON."""

from base64 import b64decode
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from comptoir.events.tables import EVENTS
from comptoir.events.types import NUMBERED, JobEnded, NumberedEvent, UnknownEvent
from comptoir.kit.db import Database, Fetch, Tx

COLUMNS = ",".join(EVENTS.names)

FORGET_ROWS_MAX = 500
"""Deleted rows after which one command of `forget` stops; it deletes fewer than twice as many."""

FORGET_OWNERS_MAX = 50
"""Owners that one command visits."""

ENDED_MAX = 5_000
"""Most events that `ended_jobs` reads: some 10 ms."""


class _Ended(msgspec.Struct):
    """What is read of the data of a `JobEnded`."""

    state: str


ENDED_TAG = str(JobEnded.__struct_config__.tag)
_decode_ended = msgspec.json.Decoder(_Ended).decode
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class _Shape(NamedTuple):
    """How a type is stored."""

    kind: type[NumberedEvent]
    tag: str
    facts: tuple[str, ...]
    """Its own fields, stored as JSON, without the first, which is the subject's id."""
    ids: tuple[str, ...]
    """Those of them that are ids: base64, as msgspec writes bytes."""
    values: Callable[[NumberedEvent], tuple[Any, ...]]
    """Returns the id, then those."""


def _shape(kind: type[NumberedEvent]) -> _Shape:
    own = kind.__struct_fields__[len(NumberedEvent.__struct_fields__) :]
    ids = [each.name for each in msgspec.structs.fields(kind) if each.type is bytes and each.name in own[1:]]
    return _Shape(kind, str(kind.__struct_config__.tag), own[1:], tuple(ids), attrgetter(*own))


BY_KIND = {kind: _shape(kind) for kind in NUMBERED}
BY_TAG = {shape.tag: shape for shape in BY_KIND.values()}


def insert_rows(tx: Tx, events: Sequence[NumberedEvent]) -> None:
    """Store *events*; their numbers must not be in use."""
    tx.insert(EVENTS, [_row(event) for event in events])


def _row(event: NumberedEvent) -> tuple[Any, ...]:
    shape = BY_KIND[type(event)]
    subject_id, *values = shape.values(event)
    data = _encode(dict(zip(shape.facts, values, strict=True))).decode()
    return event.owner_id, event.number, event.at_ms, shape.tag, subject_id, data


def _event(row: tuple[Any, ...]) -> NumberedEvent:
    owner_id, number, at_ms, tag, subject_id, data = row
    shape = BY_TAG.get(tag)
    if shape is None:  # A newer coordinator wrote it: readers skip past it.
        return UnknownEvent(owner_id, at_ms, number, subject_id, tag, data)
    facts = _decode(data)
    known = {name: facts[name] for name in shape.facts if name in facts}
    for name in shape.ids:
        known[name] = b64decode(known[name])
    return shape.kind(owner_id, at_ms, number, subject_id, **known)  # type: ignore[call-arg]


async def page(db: Database, owner_id: bytes, *, after: int, limit: int) -> list[NumberedEvent]:
    """Return the owner's next *limit* events, by number."""
    sql = f"SELECT {COLUMNS} FROM events WHERE owner_id = ? AND number > ? ORDER BY number LIMIT ?"
    return [_event(row) for row in await db.fetch(sql, [owner_id, after, limit], of=owner_id)]


def next_events(fetch: Fetch, owner_id: bytes, *, after: int, limit: int) -> list[NumberedEvent]:
    """Return the owner's next *limit* events, by number."""
    sql = f"SELECT {COLUMNS} FROM events WHERE owner_id = ? AND number > ? ORDER BY number LIMIT ?"
    return [_event(row) for row in fetch(sql, [owner_id, after, limit])]


def number_before(fetch: Fetch, owner_id: bytes, *, at_ms: int) -> int:
    """Return the number of the last event before *at_ms*, by bisection: some 20 reads by key for a million events."""
    rows = fetch("SELECT number FROM events WHERE owner_id = ? ORDER BY number LIMIT 1", [owner_id])
    if not rows:
        return 0
    low, high = int(rows[0][0]) - 1, newest_number(fetch, owner_id)
    while low < high:
        middle = (low + high + 1) // 2
        ((then_ms,),) = fetch("SELECT at_ms FROM events WHERE owner_id = ? AND number = ?", [owner_id, middle])
        low, high = (middle, high) if then_ms < at_ms else (low, middle - 1)
    return low


async def newest(db: Database, owner_id: bytes) -> int:
    """Return the owner's highest number; 0: no event yet."""
    return await db.fetch_snapshot(lambda fetch: newest_number(fetch, owner_id), of=owner_id)


def newest_number(fetch: Fetch, owner_id: bytes) -> int:
    """Return the owner's highest number; 0: no event yet."""
    rows = fetch("SELECT number FROM events WHERE owner_id = ? ORDER BY number DESC LIMIT 1", [owner_id])
    return int(rows[0][0]) if rows else 0


def ended_jobs(fetch: Fetch, owner_id: bytes, *, after: int) -> tuple[int, list[tuple[bytes, str]]] | None:
    """Return the highest number, and id and state of the jobs that ended after *after*; see `Events.ended_jobs`."""
    sql = "SELECT number, type, subject_id, data FROM events WHERE owner_id = ? AND number >= ? ORDER BY number LIMIT ?"
    rows = fetch(sql, [owner_id, after, ENDED_MAX + 2])
    if len(rows) > ENDED_MAX + 1 or (after and (not rows or rows[0][0] != after)):
        return None
    fresh = [row for row in rows if row[0] > after]
    if fresh and fresh[0][0] != after + 1:
        return None
    ended = [(bytes(job_id), _decode_ended(data).state) for _, tag, job_id, data in fresh if tag == ENDED_TAG]
    return (int(rows[-1][0]) if rows else after), ended


def forget(tx: Tx, *, older_than_ms: int, after: bytes) -> tuple[int, bytes | None]:
    """Delete old events of some owners after *after*; return how many, and the owner to continue after (None: the end).

    Only an owner's oldest events are deleted, so that the rest has no gap; never the newest, which tells readers how
    far the numbers have come.
    """
    gone = 0
    for _ in range(FORGET_OWNERS_MAX):
        sql = "SELECT owner_id, number, at_ms FROM events WHERE owner_id > ? ORDER BY owner_id, number LIMIT 1"
        found = tx.fetch(sql, [after])
        if not found:
            return gone, None
        ((owner_id, _, first_ms),) = found
        if first_ms < older_than_ms:
            gone += _forget_of(tx, owner_id, older_than_ms=older_than_ms)
            if gone >= FORGET_ROWS_MAX:
                return gone, after  # This owner may have more.
        after = owner_id
    return gone, after


def _forget_of(tx: Tx, owner_id: bytes, *, older_than_ms: int) -> int:
    sql = "SELECT number, at_ms FROM events WHERE owner_id = ? ORDER BY number LIMIT ?"
    rows = tx.fetch(sql, [owner_id, FORGET_ROWS_MAX + 1])
    last = 0
    for number, at_ms in rows[:-1]:
        if at_ms >= older_than_ms:
            break
        last = number
    return tx.execute("DELETE FROM events WHERE owner_id = ? AND number <= ?", [owner_id, last])
