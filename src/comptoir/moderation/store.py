"""SQL of the moderation room; private to it."""

from collections.abc import Sequence

from comptoir.kit.db import Database, Tx, in_words
from comptoir.moderation.tables import ACTS
from comptoir.moderation.types import LIFTED_BY, Act, Decision

_COLUMNS = ", ".join(ACTS.names)

LOCK = "SELECT pg_advisory_xact_lock(7164780238607)"
"""Makes coordinators that record acts at the same moment number them one after the other, until the commit."""


def lock(tx: Tx) -> None:
    """Let no other coordinator record an act before this transaction has ended; SQLite has one writer anyway."""
    if tx.dialect == "postgresql":
        tx.fetch(LOCK)


def insert(tx: Tx, one: Decision) -> Act:
    """Add *one* under the next number; the caller has the lock."""
    ((last,),) = tx.fetch("SELECT COALESCE(MAX(number), 0) FROM acts")
    author = one.author
    act = Act(int(last) + 1, one.id, one.at_ms, author.id, author.name, one.verb.value, one.subject, one.reason)
    tx.insert(ACTS, [(act.number, act.id, act.at_ms, act.operator_id, act.operator, act.verb, act.subject, act.reason)])
    tx.notes.append(in_words(f"act {act.number}: {act.verb} {act.subject}"))
    return act


def newest_about(tx: Tx, subject: str, verbs: Sequence[str]) -> Act | None:
    """Return the newest act about *subject* that is one of *verbs*."""
    return next((Act(*row) for row in tx.fetch(_newest(len(verbs)), [subject, *verbs])), None)


async def read_newest_about(db: Database, subject: str, verb: str) -> Act | None:
    """Return the newest act about *subject* that is *verb*, outside a transaction."""
    rows = await db.fetch_few(ACTS, ACTS.names, (subject,), by=("subject",))
    return max((act for act in (Act(*row) for row in rows) if act.verb == verb), key=_number, default=None)


def _number(act: Act) -> int:
    return act.number


def _newest(verbs: int) -> str:
    marks = ", ".join("?" * verbs)
    return f"SELECT {_COLUMNS} FROM acts WHERE subject = ? AND verb IN ({marks}) ORDER BY number DESC LIMIT 1"


async def in_force(db: Database) -> list[Act]:
    """Return the acts in force, oldest first."""
    found: list[Act] = []
    for verb, lifted_by in LIFTED_BY.items():
        marks = ", ".join("?" * (1 + len(lifted_by)))
        rows = await db.fetch(
            f"SELECT {_COLUMNS} FROM acts AS a WHERE verb = ? AND NOT EXISTS (SELECT 1 FROM acts AS b "
            f"WHERE b.subject = a.subject AND b.number > a.number AND b.verb IN ({marks})) ORDER BY number",
            [verb.value, verb.value, *lifted_by],
        )
        found += [Act(*row) for row in rows]
    return sorted(found, key=lambda act: act.number)


async def last_number(db: Database) -> int:
    """Return the highest number; 0 for an empty record."""
    ((last,),) = await db.fetch("SELECT COALESCE(MAX(number), 0) FROM acts")
    return int(last)


async def numbered(db: Database, number: int) -> Act | None:
    """Return the act with this number."""
    row = await db.fetch_point(ACTS, ACTS.names, (number,))
    return Act(*row) if row is not None else None


async def before(db: Database, number: int | None, limit: int) -> list[Act]:
    """Return the acts before *number* (None: all), newest first."""
    where, params = ("WHERE number < ?", [number]) if number is not None else ("", [])
    rows = await db.fetch(f"SELECT {_COLUMNS} FROM acts {where} ORDER BY number DESC LIMIT {limit}", params)
    return [Act(*row) for row in rows]


async def with_id(db: Database, act_id: bytes) -> Act | None:
    """Return the act with this id."""
    row = await db.fetch_point(ACTS, ACTS.names, (act_id,), by=("id",))
    return Act(*row) if row is not None else None


async def lifted_since(db: Database, subjects: Sequence[str], at_ms: int) -> set[str]:
    """Return those of *subjects* about which a suspension was lifted at *at_ms* or later."""
    lifts = [verb.value for verbs in LIFTED_BY.values() for verb in verbs]
    found: set[str] = set()
    for first in range(0, len(subjects), SUBJECTS_AT_ONCE):
        part = subjects[first : first + SUBJECTS_AT_ONCE]
        marks, verbs = ", ".join("?" * len(part)), ", ".join("?" * len(lifts))
        sql = f"SELECT subject FROM acts WHERE subject IN ({marks}) AND at_ms >= ? AND verb IN ({verbs})"
        found |= {row[0] for row in await db.fetch(sql, [*part, at_ms, *lifts])}
    return found


SUBJECTS_AT_ONCE = 200
