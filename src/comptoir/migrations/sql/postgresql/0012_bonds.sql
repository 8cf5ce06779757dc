-- Compiled from tools/migrations/versions/0012_bonds.py for postgresql. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE bonds (
    host_id BYTEA NOT NULL,
    owner_id BYTEA NOT NULL,
    amount_uusd BIGINT NOT NULL,
    state TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    closed_ms BIGINT,
    PRIMARY KEY (host_id)
);

CREATE INDEX ix_bonds_host_id_partial ON bonds (host_id) WHERE state = 'open';
