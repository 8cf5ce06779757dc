-- Compiled from tools/migrations/versions/0012_bonds.py for sqlite. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE bonds (
    host_id BLOB NOT NULL,
    owner_id BLOB NOT NULL,
    amount_uusd INTEGER NOT NULL,
    state TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    closed_ms INTEGER,
    PRIMARY KEY (host_id)
) WITHOUT ROWID;

CREATE INDEX ix_bonds_host_id_partial ON bonds (host_id) WHERE state = 'open';
