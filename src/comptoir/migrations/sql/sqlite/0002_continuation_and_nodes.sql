-- Compiled from tools/migrations/versions/0002_continuation_and_nodes.py for sqlite. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE journal (
    job_id BLOB NOT NULL,
    first_frame INTEGER NOT NULL,
    frames BLOB NOT NULL,
    PRIMARY KEY (job_id, first_frame)
) WITHOUT ROWID;

CREATE TABLE nodes (
    id BLOB NOT NULL,
    slot INTEGER NOT NULL,
    version TEXT NOT NULL,
    started_ms INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL,
    left_ms INTEGER,
    PRIMARY KEY (id)
) WITHOUT ROWID;

ALTER TABLE attempts ADD COLUMN prompt_tokens INTEGER;

ALTER TABLE attempts ADD COLUMN price_in_uusd_per_mtok INTEGER;

ALTER TABLE attempts ADD COLUMN price_out_uusd_per_mtok INTEGER;

ALTER TABLE jobs ADD COLUMN node_id BLOB;

ALTER TABLE jobs ADD COLUMN home_id BLOB;

ALTER TABLE jobs ADD COLUMN restarts INTEGER;
