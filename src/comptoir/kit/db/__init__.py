"""Storage: every write is a command given to one writer thread, which commits many of them at once.

A command is a plain function over a `Tx`. The writer takes all waiting commands, runs them in one transaction, commits
once and only then resolves the futures: durable before the answer. Hot commands are written over a batch
(`Database.batch`): load, decide, apply for all items together, one statement per table. The same code runs on SQLite
(the embedded default) and on PostgreSQL.

Reads: a row or a few by key on the event loop (`Database.fetch_point`, `fetch_few`, `fetch_keys`); anything else in one
of a few threads (`fetch`, `fetch_snapshot`), for one caller at a time; an audit in one of its own (`read_snapshot`).

A command appends to `Tx.notes` what its commit will confirm to somebody outside; `CommitRecord` keeps count of it, so
that lost commits are seen. While some are missing, commands are refused with `CommitsLost`, but for those of
`despite_loss`.

Commands submitted without awaiting the one before may run in another order. No network call, no `await` and no clock
inside a command; a command may run twice (a lost connection, a deadlock), so it must not change anything outside its
transaction. Several coordinators may write to one PostgreSQL: a command selects the rows that it decides on with
``lock``, and declares them beforehand (`locking`, or ``locks`` of `Database.run`).
"""

from comptoir.kit.db.engine import Database, despite_loss, open_database
from comptoir.kit.db.heads import BEGINNING, COMMIT_HEADS, TABLES, CommitsLost, Head, in_words, lacks, read_words
from comptoir.kit.db.locks import Rows, locking
from comptoir.kit.db.record import CommitRecord, Gap, HeadClaim
from comptoir.kit.db.record_file import RECORDS_NAME, RecordSeen, own_record, records_in, write_beside
from comptoir.kit.db.schema import Table, ddl
from comptoir.kit.db.store import Fetch
from comptoir.kit.db.tx import Tx

__all__ = [
    "BEGINNING",
    "COMMIT_HEADS",
    "RECORDS_NAME",
    "TABLES",
    "CommitRecord",
    "CommitsLost",
    "Database",
    "Fetch",
    "Gap",
    "Head",
    "HeadClaim",
    "RecordSeen",
    "Rows",
    "Table",
    "Tx",
    "ddl",
    "despite_loss",
    "in_words",
    "lacks",
    "locking",
    "open_database",
    "own_record",
    "read_words",
    "records_in",
    "write_beside",
]
