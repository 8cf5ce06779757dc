-- Compiled from tools/migrations/versions/0007_invitations.py for sqlite. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE invitations (
    digest BLOB NOT NULL,
    id BLOB NOT NULL,
    invited_as TEXT NOT NULL,
    uses INTEGER NOT NULL,
    uses_max INTEGER NOT NULL,
    credit_uusd INTEGER,
    note TEXT NOT NULL,
    made_by BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    revoked_ms INTEGER,
    PRIMARY KEY (digest)
);

CREATE UNIQUE INDEX uq_invitations_id ON invitations (id);
