-- Compiled from tools/migrations/versions/0010_evidence.py for sqlite. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE evidence (
    id BLOB NOT NULL,
    host_id BLOB NOT NULL,
    job_id BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    keyid BLOB NOT NULL,
    stated BLOB NOT NULL,
    signature BLOB NOT NULL,
    arrived_keyid BLOB NOT NULL,
    arrived BLOB NOT NULL,
    arrived_signature BLOB NOT NULL,
    used_ms INTEGER,
    PRIMARY KEY (id)
) WITHOUT ROWID;

CREATE INDEX ix_evidence_host_id ON evidence (host_id);
