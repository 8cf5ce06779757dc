-- Compiled from tools/migrations/versions/0001_first.py for postgresql. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE access_keys (
    digest BYTEA NOT NULL,
    id BYTEA NOT NULL,
    owner_kind TEXT NOT NULL,
    owner_id BYTEA NOT NULL,
    created_ms BIGINT NOT NULL,
    revoked_ms BIGINT,
    PRIMARY KEY (digest)
);

CREATE INDEX ix_access_keys_owner_id ON access_keys (owner_id);

CREATE UNIQUE INDEX uq_access_keys_id ON access_keys (id);

CREATE TABLE accounts (
    id BYTEA NOT NULL,
    kind TEXT NOT NULL,
    balance_uusd BIGINT NOT NULL,
    held_uusd BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE answers (
    job_id BYTEA NOT NULL,
    frames BYTEA NOT NULL,
    usage BYTEA NOT NULL,
    PRIMARY KEY (job_id)
);

CREATE TABLE attempts (
    id BYTEA NOT NULL,
    job_id BYTEA NOT NULL,
    host_id BYTEA NOT NULL,
    state TEXT NOT NULL,
    first_frame BIGINT NOT NULL,
    end_frame BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    paid_uusd BIGINT NOT NULL,
    started_ms BIGINT NOT NULL,
    ended_ms BIGINT,
    fault TEXT,
    chain BYTEA,
    signature BYTEA,
    PRIMARY KEY (id)
);

CREATE INDEX ix_attempts_job_id ON attempts (job_id);

CREATE TABLE holds (
    job_id BYTEA NOT NULL,
    account_id BYTEA NOT NULL,
    amount_uusd BIGINT NOT NULL,
    settled_uusd BIGINT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (job_id)
);

CREATE TABLE hosts (
    id BYTEA NOT NULL,
    owner_id BYTEA,
    gpu TEXT NOT NULL,
    vram_mib BIGINT NOT NULL,
    region TEXT NOT NULL,
    tier TEXT NOT NULL,
    backend TEXT NOT NULL,
    transport TEXT NOT NULL,
    endpoint_url TEXT,
    models BYTEA NOT NULL,
    slots BIGINT NOT NULL,
    status TEXT NOT NULL,
    public_key BYTEA,
    created_ms BIGINT NOT NULL,
    last_seen_ms BIGINT NOT NULL,
    jobs_done BIGINT NOT NULL,
    jobs_failed BIGINT NOT NULL,
    jobs_lost BIGINT NOT NULL,
    tokens_done BIGINT NOT NULL,
    good_milli BIGINT NOT NULL,
    bad_milli BIGINT NOT NULL,
    outcome_ms BIGINT NOT NULL,
    retired_ms BIGINT,
    PRIMARY KEY (id)
);

CREATE INDEX ix_hosts_owner_id ON hosts (owner_id);

CREATE TABLE idempotency (
    owner_id BYTEA NOT NULL,
    name TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    resource_id BYTEA NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (owner_id, name)
);

CREATE INDEX ix_idempotency_created_ms ON idempotency (created_ms);

CREATE TABLE job_events (
    job_id BYTEA NOT NULL,
    seq BIGINT NOT NULL,
    state TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    detail TEXT,
    PRIMARY KEY (job_id, seq)
);

CREATE TABLE jobs (
    id BYTEA NOT NULL,
    owner_id BYTEA NOT NULL,
    dialect TEXT NOT NULL,
    kind TEXT NOT NULL,
    model TEXT NOT NULL,
    state TEXT NOT NULL,
    body BYTEA NOT NULL,
    prompt_tokens_max BIGINT NOT NULL,
    max_tokens BIGINT NOT NULL,
    price_in_uusd_per_mtok BIGINT NOT NULL,
    price_out_uusd_per_mtok BIGINT NOT NULL,
    hold_uusd BIGINT NOT NULL,
    detached BIGINT NOT NULL,
    deadline_ms BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    started_ms BIGINT,
    finished_ms BIGINT,
    host_id BYTEA,
    attempt_id BYTEA,
    prompt_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    cost_uusd BIGINT NOT NULL,
    finish_reason TEXT,
    fault TEXT,
    error_code TEXT,
    error_message TEXT,
    PRIMARY KEY (id)
);

CREATE INDEX ix_jobs_id_partial ON jobs (id) WHERE state IN ('queued', 'running');

CREATE INDEX ix_jobs_owner_id_id ON jobs (owner_id, id);

CREATE TABLE receipts (
    job_id BYTEA NOT NULL,
    keyid BYTEA NOT NULL,
    payload BYTEA NOT NULL,
    signature BYTEA NOT NULL,
    PRIMARY KEY (job_id)
);

CREATE TABLE signing_keys (
    keyid BYTEA NOT NULL,
    public_key BYTEA NOT NULL,
    holder_kind TEXT NOT NULL,
    holder TEXT NOT NULL,
    valid_from_ms BIGINT NOT NULL,
    revoked_ms BIGINT,
    PRIMARY KEY (keyid)
);

CREATE INDEX ix_signing_keys_holder ON signing_keys (holder);

CREATE TABLE transfers (
    id BYTEA NOT NULL,
    debit_id BYTEA NOT NULL,
    credit_id BYTEA NOT NULL,
    amount_uusd BIGINT NOT NULL,
    kind TEXT NOT NULL,
    job_id BYTEA,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX ix_transfers_credit_id_id ON transfers (credit_id, id);

CREATE INDEX ix_transfers_debit_id_id ON transfers (debit_id, id);

CREATE TABLE users (
    id BYTEA NOT NULL,
    username TEXT NOT NULL,
    username_folded TEXT NOT NULL,
    email TEXT,
    email_folded TEXT,
    password_hash TEXT,
    role TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE UNIQUE INDEX uq_users_email_folded ON users (email_folded);

CREATE UNIQUE INDEX uq_users_username_folded ON users (username_folded);
