"""temporary"""

from comptoir.hosts.tables import TABLES as E
from comptoir.idempotency.tables import TABLES as F
from comptoir.identity.tables import TABLES as C
from comptoir.jobs.tables import TABLES as B
from comptoir.kit.db import Database, Tx, ddl
from comptoir.ledger.tables import TABLES as A
from comptoir.receipts.tables import TABLES as D


async def upgrade(db: Database) -> None:
    try:
        await db.fetch("SELECT 1 FROM jobs LIMIT 1")
        return
    except Exception:
        pass

    def cmd(tx: Tx) -> None:
        for t in (*A, *B, *C, *D, *E, *F):
            for s in ddl(t, tx.dialect):
                tx.execute(s)

    await db.run(cmd)
