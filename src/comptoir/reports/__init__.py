"""Reports: read-only queries over several rooms at once.

Owns nothing and writes nothing; may read every room's tables.
Invariant: an audit sees one snapshot of the whole database, so concurrent work makes no difference.
Units: micro-dollars. Knows: the ledger's own audit.
"""

from comptoir.reports.audit import audit
from comptoir.reports.earnings import KindPay, earned_by_kind

__all__ = ["KindPay", "audit", "earned_by_kind"]
