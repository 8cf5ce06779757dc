-- Compiled from tools/migrations/versions/0005_events.py for postgresql. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE events (
    owner_id BYTEA NOT NULL,
    number BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    type TEXT NOT NULL,
    subject_id BYTEA NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (owner_id, number)
);

ALTER TABLE accounts ADD COLUMN last_event BIGINT;
