-- Compiled from tools/migrations/versions/0013_signups.py for sqlite. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE signups (
    day INTEGER NOT NULL,
    address TEXT NOT NULL,
    credited INTEGER NOT NULL,
    PRIMARY KEY (day, address)
);
