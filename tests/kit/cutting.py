"""A PostgreSQL store whose connection breaks around a COMMIT when a test says so."""

import psycopg

from comptoir.kit.db.heads import HeadMove
from comptoir.kit.db.postgres import PostgresStore

END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


class CuttingStore(PostgresStore):
    """Breaks once each time it is told to."""

    before = False
    """Cut before the server sees the COMMIT."""
    after = False
    """Cut when the server has committed, before its answer is read."""

    def commit(self, move: HeadMove | None = None) -> None:
        if self.before:
            self.before = False
            cut(self._url)
        super().commit(move)
        if self.after:
            self.after = False
            self._writing.close()
            raise psycopg.OperationalError("the answer to COMMIT was lost")


def cut(url: str) -> None:
    """End every other connection to the database of *url*, as an administrator would."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(END_OTHERS)
