"""What a host earned, by the kind of work."""

import msgspec

from comptoir.kit.db import Database

PAYMENTS_MAX = 10_000
"""Newest payments to a host that are looked at, so that the answer takes no longer for a host of years."""

_EARNED = f"""
SELECT j.kind, COUNT(DISTINCT j.id), SUM(t.amount_uusd) FROM (
  SELECT job_id, amount_uusd FROM transfers WHERE credit_id = ? AND kind = 'pay' ORDER BY id DESC LIMIT {PAYMENTS_MAX}
) t JOIN jobs j ON j.id = t.job_id GROUP BY j.kind ORDER BY 3 DESC, 1
"""


class KindPay(msgspec.Struct, frozen=True):
    """What one kind of work has brought a host."""

    kind: str
    jobs: int
    """For which it was paid."""
    earned_uusd: int


async def earned_by_kind(db: Database, host_id: bytes) -> list[KindPay]:
    """Return what a host earned with each kind, of its newest `PAYMENTS_MAX` payments; the best first.

    Raises:
        Unavailable: as `Database.fetch`.
    """
    rows = await db.fetch(_EARNED, [host_id], of=host_id)
    return [KindPay(str(kind), int(jobs), int(earned)) for kind, jobs, earned in rows]
