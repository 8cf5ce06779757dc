"""The whole audit: the ledger, then jobs against holds, transfers, attempts, their events and receipts, then `events`.

Every check is one statement over whole tables, the same on both databases, and returns what does not add up: the id of
the job, what is recorded, what it should be.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from comptoir import ledger
from comptoir.jobs import FINAL
from comptoir.kit.db import Database, Fetch, Head, RecordSeen, lacks, records_in
from comptoir.kit.ids import public

DIFFERENCES_MAX = 1000
"""Differences returned per check; if there are more, they have one cause, not a thousand."""


class AuditDifference(msgspec.Struct, frozen=True):
    """One thing that does not add up."""

    what: str
    """Name of the check, as in `CHECKS` or the ledger's ``balance``, ``held``, ``overdrawn``, ``settled``, ``sum``; or
    ``commits``: the database is behind a commit record."""
    subject: str
    """Public id of the job, hex id of the account or record; empty for the whole ledger."""
    recorded: str
    recomputed: str


FINAL_STATES = ",".join(f"'{state}'" for state in sorted(FINAL))
OPEN_ATTEMPT = "('leased', 'streaming')"

CHECKS = {
    "job without hold": """
SELECT j.id, 'none', 'a hold' FROM jobs j WHERE NOT EXISTS (SELECT 1 FROM holds h WHERE h.job_id = j.id)
""",
    "hold without job": """
SELECT h.job_id, h.state, 'no hold' FROM holds h WHERE NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = h.job_id)
""",
    "hold of a finished job is open": f"""
SELECT j.id, h.state, 'closed' FROM jobs j JOIN holds h ON h.job_id = j.id
WHERE j.state IN ({FINAL_STATES}) AND h.state = 'open'
""",
    "hold of an unfinished job is closed": f"""
SELECT j.id, h.state, 'open' FROM jobs j JOIN holds h ON h.job_id = j.id
WHERE j.state NOT IN ({FINAL_STATES}) AND h.state <> 'open'
""",
    "hold of another amount": """
SELECT j.id, h.amount_uusd, j.hold_uusd FROM jobs j JOIN holds h ON h.job_id = j.id WHERE h.amount_uusd <> j.hold_uusd
""",
    "hold of another buyer": """
SELECT j.id, 'another account', 'its buyer' FROM jobs j JOIN holds h ON h.job_id = j.id WHERE h.account_id <> j.owner_id
""",
    "cost": """
SELECT j.id, j.cost_uusd, h.settled_uusd FROM jobs j JOIN holds h ON h.job_id = j.id WHERE j.cost_uusd <> h.settled_uusd
""",
    "finished job without receipt": f"""
SELECT j.id, 'none', 'a receipt' FROM jobs j
WHERE j.state IN ({FINAL_STATES}) AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.job_id = j.id)
""",
    "receipt of an unfinished job": f"""
SELECT r.job_id, 'a receipt', 'none' FROM receipts r LEFT JOIN jobs j ON j.id = r.job_id
WHERE j.id IS NULL OR j.state NOT IN ({FINAL_STATES})
""",
    "paid to a host": """
SELECT u.job_id, SUM(u.recorded), SUM(u.moved) FROM (
    SELECT job_id, host_id, paid_uusd AS recorded, 0 AS moved FROM attempts WHERE paid_uusd <> 0
    UNION ALL
    SELECT job_id, credit_id, 0, amount_uusd FROM transfers WHERE kind = 'pay' AND job_id IS NOT NULL
) u GROUP BY u.job_id, u.host_id HAVING SUM(u.recorded) <> SUM(u.moved)
""",
    "transfer without job": """
SELECT t.job_id, t.amount_uusd, 0 FROM transfers t
WHERE t.job_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = t.job_id)
""",
    "several open attempts": f"""
SELECT job_id, COUNT(*), 1 FROM attempts WHERE state IN {OPEN_ATTEMPT} GROUP BY job_id HAVING COUNT(*) > 1
""",
    "open attempt that is not its job's": f"""
SELECT a.job_id, a.state, 'closed' FROM attempts a LEFT JOIN jobs j ON j.id = a.job_id
WHERE a.state IN {OPEN_ATTEMPT} AND (j.id IS NULL OR j.state <> 'running' OR j.attempt_id IS NULL OR j.attempt_id <> a.id)
""",
    "running job without open attempt": f"""
SELECT j.id, COALESCE(a.state, 'none'), 'open' FROM jobs j LEFT JOIN attempts a ON a.id = j.attempt_id
WHERE j.state = 'running' AND (a.id IS NULL OR a.state NOT IN {OPEN_ATTEMPT})
""",
    "job without events": """
SELECT j.id, 'none', j.state FROM jobs j WHERE NOT EXISTS (SELECT 1 FROM job_events e WHERE e.job_id = j.id AND e.seq = 0)
""",
    "last event": """
SELECT x.job_id, e.state, COALESCE(j.state, 'no job')
FROM (SELECT job_id, MAX(seq) AS seq FROM job_events GROUP BY job_id) x
JOIN job_events e ON e.job_id = x.job_id AND e.seq = x.seq
LEFT JOIN jobs j ON j.id = x.job_id
WHERE j.id IS NULL OR e.state <> j.state
""",
    "events with gaps": """
SELECT job_id, MAX(seq) + 1, COUNT(*) FROM job_events GROUP BY job_id HAVING COUNT(*) <> MAX(seq) + 1
""",
    "several ends": f"""
SELECT job_id, COUNT(*), 1 FROM job_events WHERE state IN ({FINAL_STATES}) GROUP BY job_id HAVING COUNT(*) > 1
""",
    "answer of an unfinished job": f"""
SELECT a.job_id, 'an answer', 'none' FROM answers a LEFT JOIN jobs j ON j.id = a.job_id
WHERE j.id IS NULL OR j.state NOT IN ({FINAL_STATES})
""",
    "journal of a finished job": f"""
SELECT x.job_id, 'frames', 'none' FROM journal x LEFT JOIN jobs j ON j.id = x.job_id
WHERE j.id IS NULL OR j.state IN ({FINAL_STATES})
""",
    "several ends published": """
SELECT subject_id, COUNT(*), 1 FROM events WHERE type = 'job.ended' GROUP BY subject_id HAVING COUNT(*) > 1
""",
    "end published of an unfinished job": f"""
SELECT e.subject_id, 'ended', COALESCE(j.state, 'no job') FROM events e LEFT JOIN jobs j ON j.id = e.subject_id
WHERE e.type = 'job.ended' AND (j.id IS NULL OR j.state NOT IN ({FINAL_STATES}))
""",
}
"""Checks by name: a statement that returns (job id, recorded, recomputed) for each difference."""

ACCOUNT_CHECKS = {
    "events published": """
SELECT e.owner_id, MAX(e.number), COALESCE(a.last_event, 0) FROM events e LEFT JOIN accounts a ON a.id = e.owner_id
GROUP BY e.owner_id, a.last_event HAVING MAX(e.number) <> COALESCE(a.last_event, 0)
""",
    "events published with gaps": """
SELECT owner_id, COUNT(*), MAX(number) - MIN(number) + 1 FROM events
GROUP BY owner_id HAVING COUNT(*) <> MAX(number) - MIN(number) + 1
""",
}
"""The same for accounts: (account id, recorded, recomputed)."""


async def audit(db: Database, records: Path | None = None) -> list[AuditDifference]:
    """Return what does not add up, at one moment; empty means zero differences.

    Args:
        records: folder of the commit records that the database is compared with; without, an older state of it that
            adds up passes.

    Takes about 25 us per stored job (a million on SQLite: 23 to 29 s, 95 MiB), in a thread, so nothing waits for it.

    Raises:
        Unavailable: the database is unavailable.
    """
    if records is None:
        return await db.read_snapshot(differences)
    # Before the snapshot: a commit in between makes the database newer, which is as it should be.
    seen = await asyncio.to_thread(records_in, records)
    return await db.read_snapshot(lambda fetch: [*lost_commits(fetch, seen), *differences(fetch)])


def lost_commits(fetch: Fetch, records: Sequence[RecordSeen]) -> list[AuditDifference]:
    """Return the records that the database is behind of: commits that were confirmed are missing from it."""
    rows = fetch("SELECT record, epoch, entries, head FROM commit_heads")
    heads = {bytes(row[0]): Head(row[1], row[2], bytes(row[3])) for row in rows}
    return [
        AuditDifference("commits", seen.record.hex(), _confirmed(heads.get(seen.record)), _confirmed(seen.head))
        for seen in records
        if lacks(heads.get(seen.record), seen.head)
    ]


def _confirmed(head: Head | None) -> str:
    return f"{head.entries} confirmed in epoch {head.epoch}, {head.sha256.hex()[:8]}" if head is not None else "none"


def differences(fetch: Fetch) -> list[AuditDifference]:
    """Return the same over a snapshot, or inside a transaction."""
    found = [
        AuditDifference(
            one.what,
            public("job", bytes.fromhex(one.subject)) if one.what == "settled" else one.subject,
            str(one.recorded),
            str(one.recomputed),
        )
        for one in ledger.differences(fetch)
    ]
    for what, sql in CHECKS.items():
        found += [
            AuditDifference(what, public("job", bytes(row[0])), str(row[1]), str(row[2]))
            for row in fetch(f"{sql.strip()} LIMIT {DIFFERENCES_MAX}")
        ]
    for what, sql in ACCOUNT_CHECKS.items():
        found += [
            AuditDifference(what, bytes(row[0]).hex(), str(row[1]), str(row[2]))
            for row in fetch(f"{sql.strip()} LIMIT {DIFFERENCES_MAX}")
        ]
    return found
