-- Compiled from tools/migrations/versions/0013_signups.py for postgresql. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE signups (
    day BIGINT NOT NULL,
    address TEXT NOT NULL,
    credited BIGINT NOT NULL,
    PRIMARY KEY (day, address)
);
