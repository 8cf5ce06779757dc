-- Compiled from tools/migrations/versions/0016_commit_heads.py for sqlite. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE commit_heads (
    record BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    head BLOB NOT NULL,
    began_ms INTEGER NOT NULL,
    reason TEXT NOT NULL,
    lost_ms INTEGER,
    PRIMARY KEY (record)
) WITHOUT ROWID;
