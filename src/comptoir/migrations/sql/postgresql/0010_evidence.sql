-- Compiled from tools/migrations/versions/0010_evidence.py for postgresql. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE evidence (
    id BYTEA NOT NULL,
    host_id BYTEA NOT NULL,
    job_id BYTEA NOT NULL,
    at_ms BIGINT NOT NULL,
    keyid BYTEA NOT NULL,
    stated BYTEA NOT NULL,
    signature BYTEA NOT NULL,
    arrived_keyid BYTEA NOT NULL,
    arrived BYTEA NOT NULL,
    arrived_signature BYTEA NOT NULL,
    used_ms BIGINT,
    PRIMARY KEY (id)
);

CREATE INDEX ix_evidence_host_id ON evidence (host_id);
