"""Recompute every balance from transfers and every held amount from holds, and name each difference."""

import msgspec

from comptoir.kit.db import Database, Fetch


class LedgerDifference(msgspec.Struct, frozen=True):
    """One thing that does not add up."""

    what: str
    """Name of a check: one of `CHECKS`, or ``sum``."""
    subject: str
    """Hex id of the account, job or transfer; empty for the whole ledger."""
    recorded: int
    recomputed: int


BALANCES = """
SELECT a.id, a.balance_uusd, COALESCE(c.total, 0) - COALESCE(d.total, 0)
FROM accounts a
LEFT JOIN (SELECT credit_id, SUM(amount_uusd) AS total FROM transfers GROUP BY credit_id) c ON c.credit_id = a.id
LEFT JOIN (SELECT debit_id, SUM(amount_uusd) AS total FROM transfers GROUP BY debit_id) d ON d.debit_id = a.id
WHERE a.balance_uusd <> COALESCE(c.total, 0) - COALESCE(d.total, 0)
"""
HELD = """
SELECT a.id, a.held_uusd, COALESCE(h.total, 0)
FROM accounts a
LEFT JOIN (SELECT account_id, SUM(amount_uusd) AS total FROM holds WHERE state = 'open' GROUP BY account_id) h
ON h.account_id = a.id
WHERE a.held_uusd <> COALESCE(h.total, 0)
"""
PROMO = """
SELECT x.account_id, SUM(x.recorded), SUM(x.moved) FROM (
    SELECT id AS account_id, COALESCE(promo_uusd, 0) AS recorded, 0 AS moved FROM accounts
    UNION ALL
    SELECT credit_id, 0, promo_uusd FROM transfers WHERE promo_uusd <> 0
    UNION ALL
    SELECT debit_id, 0, -promo_uusd FROM transfers WHERE promo_uusd <> 0
    UNION ALL
    SELECT account_id, 0, amount_uusd FROM promo_corrections
) x GROUP BY x.account_id HAVING SUM(x.recorded) <> SUM(x.moved)
"""
PROMO_BOUNDS = """
SELECT a.id, a.promo_uusd, a.balance_uusd FROM accounts a
WHERE a.kind NOT IN ('payments_in', 'promotions') AND (a.promo_uusd < 0 OR (
    a.promo_uusd > a.balance_uusd AND a.promo_uusd - a.balance_uusd > (
        SELECT COALESCE(SUM(t.amount_uusd), 0) FROM transfers t WHERE t.debit_id = a.id AND t.promo_uusd IS NULL
    )
))
"""
"""What coordinators of an older version spent may still be recorded as promotional; the next command corrects it."""
PROMO_TRANSFERS = """
SELECT id, promo_uusd, amount_uusd FROM transfers WHERE promo_uusd < 0 OR promo_uusd > amount_uusd
"""
OVERDRAWN = """
SELECT id, balance_uusd, held_uusd FROM accounts
WHERE (kind NOT IN ('payments_in', 'promotions') AND balance_uusd < held_uusd) OR held_uusd < 0
"""
SETTLED = """
SELECT h.job_id, h.settled_uusd, COALESCE(t.total, 0)
FROM holds h
LEFT JOIN (SELECT job_id, SUM(amount_uusd) AS total FROM transfers WHERE job_id IS NOT NULL GROUP BY job_id) t
ON t.job_id = h.job_id
WHERE h.settled_uusd <> COALESCE(t.total, 0) OR h.settled_uusd > h.amount_uusd
"""
OPEN_BONDS = """
SELECT a.id, a.balance_uusd, COALESCE((SELECT SUM(b.amount_uusd) FROM bonds b WHERE b.state = 'open'), 0)
FROM accounts a WHERE a.kind = 'bonds'
AND a.balance_uusd <> COALESCE((SELECT SUM(b.amount_uusd) FROM bonds b WHERE b.state = 'open'), 0)
"""
CHECKS = {
    "balance": BALANCES,
    "held": HELD,
    "overdrawn": OVERDRAWN,
    "settled": SETTLED,
    "bonds": OPEN_BONDS,
    "promotional": PROMO,
    "promotional above the balance": PROMO_BOUNDS,
    "promotional above the transfer": PROMO_TRANSFERS,
}
"""Checks by name: a statement that returns (id, recorded, recomputed) for each difference."""


async def audit(db: Database) -> list[LedgerDifference]:
    """Return every difference in the ledger, at one moment; an empty list means that it is exact."""
    return await db.read_snapshot(differences)


def differences(fetch: Fetch) -> list[LedgerDifference]:
    """Return the same over an open snapshot, which the caller also reads other tables in."""
    found = []
    for what, sql in CHECKS.items():
        found += [
            LedgerDifference(what, bytes(key).hex(), int(recorded), int(recomputed))
            for key, recorded, recomputed in fetch(sql)
        ]
    ((total,),) = fetch("SELECT COALESCE(SUM(balance_uusd), 0) FROM accounts")
    if total:
        found.append(LedgerDifference("sum", "", int(total), 0))
    return found
