"""Sign-ups of a day (UTC) that got credit, by the address they came from. Kept for that day only."""

from comptoir.identity.tables import SIGNUPS
from comptoir.kit.db import Tx

DAY_MS = 24 * 3600 * 1000


def count_signup(tx: Tx, *, address: str, at_ms: int, most: int) -> bool:
    """Count one more sign-up with credit from *address* on the day of *at_ms*; False: it has had *most* (>= 0) already.

    Exact however many are written at once and wherever: the update locks the row and looks at it again.
    """
    if most < 1:
        return False
    sql = (
        f"INSERT INTO {SIGNUPS.name} (day, address, credited) VALUES (?, ?, 1) ON CONFLICT (day, address) "
        f"DO UPDATE SET credited = {SIGNUPS.name}.credited + 1 WHERE {SIGNUPS.name}.credited < ?"
    )
    return tx.execute(sql, [at_ms // DAY_MS, address, most]) > 0


def forget_signups(tx: Tx, *, now_ms: int) -> int:
    """Delete the addresses of days that are over; return how many. A day has few: they are bounded by its sign-ups."""
    return tx.execute(f"DELETE FROM {SIGNUPS.name} WHERE day < ?", [now_ms // DAY_MS])
