-- Compiled from tools/migrations/versions/0007_invitations.py for postgresql. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE invitations (
    digest BYTEA NOT NULL,
    id BYTEA NOT NULL,
    invited_as TEXT NOT NULL,
    uses BIGINT NOT NULL,
    uses_max BIGINT NOT NULL,
    credit_uusd BIGINT,
    note TEXT NOT NULL,
    made_by BYTEA NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    revoked_ms BIGINT,
    PRIMARY KEY (digest)
);

CREATE UNIQUE INDEX uq_invitations_id ON invitations (id);
