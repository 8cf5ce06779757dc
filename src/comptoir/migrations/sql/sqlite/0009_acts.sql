-- Compiled from tools/migrations/versions/0009_acts.py for sqlite. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE acts (
    number INTEGER NOT NULL,
    id BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    operator_id BLOB,
    operator TEXT NOT NULL,
    verb TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (number)
);

CREATE UNIQUE INDEX uq_acts_id ON acts (id);

CREATE INDEX ix_acts_subject_number ON acts (subject, number);
