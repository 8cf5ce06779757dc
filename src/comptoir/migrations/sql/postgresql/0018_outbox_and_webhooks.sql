-- Compiled from tools/migrations/versions/0018_outbox_and_webhooks.py for postgresql. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE outbox (
    id BYTEA NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    owner_id BYTEA NOT NULL,
    lane BYTEA NOT NULL,
    number BIGINT NOT NULL,
    payload BYTEA NOT NULL,
    state TEXT NOT NULL,
    tried BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    attempts_end BIGINT NOT NULL,
    due_ms BIGINT,
    node_id BYTEA,
    created_ms BIGINT NOT NULL,
    give_up_ms BIGINT NOT NULL,
    over_ms BIGINT,
    history TEXT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX ix_outbox_due_ms_partial ON outbox (due_ms) WHERE state = 'waiting';

CREATE INDEX ix_outbox_lane_created_ms ON outbox (lane, created_ms);

CREATE INDEX ix_outbox_over_ms_partial ON outbox (over_ms) WHERE over_ms IS NOT NULL;

CREATE INDEX ix_outbox_owner_id_lane_tried_partial ON outbox (owner_id, lane, tried) WHERE state = 'waiting';

CREATE TABLE webhooks (
    id BYTEA NOT NULL,
    owner_id BYTEA NOT NULL,
    url TEXT NOT NULL,
    types TEXT NOT NULL,
    note TEXT NOT NULL,
    parallel BIGINT NOT NULL,
    state TEXT NOT NULL,
    why TEXT NOT NULL,
    cursor BIGINT NOT NULL,
    failing_since_ms BIGINT,
    secret BYTEA NOT NULL,
    old_secret BYTEA,
    old_secret_until_ms BIGINT,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX ix_webhooks_owner_id ON webhooks (owner_id);
