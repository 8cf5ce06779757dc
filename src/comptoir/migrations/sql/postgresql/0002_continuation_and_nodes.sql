-- Compiled from tools/migrations/versions/0002_continuation_and_nodes.py for postgresql. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE journal (
    job_id BYTEA NOT NULL,
    first_frame BIGINT NOT NULL,
    frames BYTEA NOT NULL,
    PRIMARY KEY (job_id, first_frame)
);

CREATE TABLE nodes (
    id BYTEA NOT NULL,
    slot BIGINT NOT NULL,
    version TEXT NOT NULL,
    started_ms BIGINT NOT NULL,
    seen_ms BIGINT NOT NULL,
    left_ms BIGINT,
    PRIMARY KEY (id)
);

ALTER TABLE attempts ADD COLUMN prompt_tokens BIGINT;

ALTER TABLE attempts ADD COLUMN price_in_uusd_per_mtok BIGINT;

ALTER TABLE attempts ADD COLUMN price_out_uusd_per_mtok BIGINT;

ALTER TABLE jobs ADD COLUMN node_id BYTEA;

ALTER TABLE jobs ADD COLUMN home_id BYTEA;

ALTER TABLE jobs ADD COLUMN restarts BIGINT;
