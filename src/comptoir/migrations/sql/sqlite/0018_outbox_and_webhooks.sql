-- Compiled from tools/migrations/versions/0018_outbox_and_webhooks.py for sqlite. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE outbox (
    id BLOB NOT NULL,
    kind TEXT NOT NULL,
    "key" TEXT NOT NULL,
    owner_id BLOB NOT NULL,
    lane BLOB NOT NULL,
    number INTEGER NOT NULL,
    payload BLOB NOT NULL,
    state TEXT NOT NULL,
    tried INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    attempts_end INTEGER NOT NULL,
    due_ms INTEGER,
    node_id BLOB,
    created_ms INTEGER NOT NULL,
    give_up_ms INTEGER NOT NULL,
    over_ms INTEGER,
    history TEXT NOT NULL,
    PRIMARY KEY (id)
) WITHOUT ROWID;

CREATE INDEX ix_outbox_due_ms_partial ON outbox (due_ms) WHERE state = 'waiting';

CREATE INDEX ix_outbox_lane_created_ms ON outbox (lane, created_ms);

CREATE INDEX ix_outbox_over_ms_partial ON outbox (over_ms) WHERE over_ms IS NOT NULL;

CREATE INDEX ix_outbox_owner_id_lane_tried_partial ON outbox (owner_id, lane, tried) WHERE state = 'waiting';

CREATE TABLE webhooks (
    id BLOB NOT NULL,
    owner_id BLOB NOT NULL,
    url TEXT NOT NULL,
    types TEXT NOT NULL,
    note TEXT NOT NULL,
    parallel INTEGER NOT NULL,
    state TEXT NOT NULL,
    why TEXT NOT NULL,
    cursor INTEGER NOT NULL,
    failing_since_ms INTEGER,
    secret BLOB NOT NULL,
    old_secret BLOB,
    old_secret_until_ms INTEGER,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (id)
) WITHOUT ROWID;

CREATE INDEX ix_webhooks_owner_id ON webhooks (owner_id);
