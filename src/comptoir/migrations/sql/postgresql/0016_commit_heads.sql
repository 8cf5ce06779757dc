-- Compiled from tools/migrations/versions/0016_commit_heads.py for postgresql. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE commit_heads (
    record BYTEA NOT NULL,
    epoch BIGINT NOT NULL,
    entries BIGINT NOT NULL,
    head BYTEA NOT NULL,
    began_ms BIGINT NOT NULL,
    reason TEXT NOT NULL,
    lost_ms BIGINT,
    PRIMARY KEY (record)
);
