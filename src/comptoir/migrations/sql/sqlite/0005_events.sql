-- Compiled from tools/migrations/versions/0005_events.py for sqlite. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE events (
    owner_id BLOB NOT NULL,
    number INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    type TEXT NOT NULL,
    subject_id BLOB NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (owner_id, number)
) WITHOUT ROWID;

ALTER TABLE accounts ADD COLUMN last_event INTEGER;
