-- Compiled from tools/migrations/versions/0001_first.py for sqlite. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE access_keys (
    digest BLOB NOT NULL,
    id BLOB NOT NULL,
    owner_kind TEXT NOT NULL,
    owner_id BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER,
    PRIMARY KEY (digest)
);

CREATE INDEX ix_access_keys_owner_id ON access_keys (owner_id);

CREATE UNIQUE INDEX uq_access_keys_id ON access_keys (id);

CREATE TABLE accounts (
    id BLOB NOT NULL,
    kind TEXT NOT NULL,
    balance_uusd INTEGER NOT NULL,
    held_uusd INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (id)
) WITHOUT ROWID;

CREATE TABLE answers (
    job_id BLOB NOT NULL,
    frames BLOB NOT NULL,
    usage BLOB NOT NULL,
    PRIMARY KEY (job_id)
) WITHOUT ROWID;

CREATE TABLE attempts (
    id BLOB NOT NULL,
    job_id BLOB NOT NULL,
    host_id BLOB NOT NULL,
    state TEXT NOT NULL,
    first_frame INTEGER NOT NULL,
    end_frame INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    paid_uusd INTEGER NOT NULL,
    started_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    fault TEXT,
    chain BLOB,
    signature BLOB,
    PRIMARY KEY (id)
) WITHOUT ROWID;

CREATE INDEX ix_attempts_job_id ON attempts (job_id);

CREATE TABLE holds (
    job_id BLOB NOT NULL,
    account_id BLOB NOT NULL,
    amount_uusd INTEGER NOT NULL,
    settled_uusd INTEGER NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (job_id)
) WITHOUT ROWID;

CREATE TABLE hosts (
    id BLOB NOT NULL,
    owner_id BLOB,
    gpu TEXT NOT NULL,
    vram_mib INTEGER NOT NULL,
    region TEXT NOT NULL,
    tier TEXT NOT NULL,
    backend TEXT NOT NULL,
    transport TEXT NOT NULL,
    endpoint_url TEXT,
    models BLOB NOT NULL,
    slots INTEGER NOT NULL,
    status TEXT NOT NULL,
    public_key BLOB,
    created_ms INTEGER NOT NULL,
    last_seen_ms INTEGER NOT NULL,
    jobs_done INTEGER NOT NULL,
    jobs_failed INTEGER NOT NULL,
    jobs_lost INTEGER NOT NULL,
    tokens_done INTEGER NOT NULL,
    good_milli INTEGER NOT NULL,
    bad_milli INTEGER NOT NULL,
    outcome_ms INTEGER NOT NULL,
    retired_ms INTEGER,
    PRIMARY KEY (id)
) WITHOUT ROWID;

CREATE INDEX ix_hosts_owner_id ON hosts (owner_id);

CREATE TABLE idempotency (
    owner_id BLOB NOT NULL,
    name TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    resource_id BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (owner_id, name)
) WITHOUT ROWID;

CREATE INDEX ix_idempotency_created_ms ON idempotency (created_ms);

CREATE TABLE job_events (
    job_id BLOB NOT NULL,
    seq INTEGER NOT NULL,
    state TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    detail TEXT,
    PRIMARY KEY (job_id, seq)
) WITHOUT ROWID;

CREATE TABLE jobs (
    id BLOB NOT NULL,
    owner_id BLOB NOT NULL,
    dialect TEXT NOT NULL,
    kind TEXT NOT NULL,
    model TEXT NOT NULL,
    state TEXT NOT NULL,
    body BLOB NOT NULL,
    prompt_tokens_max INTEGER NOT NULL,
    max_tokens INTEGER NOT NULL,
    price_in_uusd_per_mtok INTEGER NOT NULL,
    price_out_uusd_per_mtok INTEGER NOT NULL,
    hold_uusd INTEGER NOT NULL,
    detached INTEGER NOT NULL,
    deadline_ms INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    started_ms INTEGER,
    finished_ms INTEGER,
    host_id BLOB,
    attempt_id BLOB,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost_uusd INTEGER NOT NULL,
    finish_reason TEXT,
    fault TEXT,
    error_code TEXT,
    error_message TEXT,
    PRIMARY KEY (id)
) WITHOUT ROWID;

CREATE INDEX ix_jobs_id_partial ON jobs (id) WHERE state IN ('queued', 'running');

CREATE INDEX ix_jobs_owner_id_id ON jobs (owner_id, id);

CREATE TABLE receipts (
    job_id BLOB NOT NULL,
    keyid BLOB NOT NULL,
    payload BLOB NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (job_id)
) WITHOUT ROWID;

CREATE TABLE signing_keys (
    keyid BLOB NOT NULL,
    public_key BLOB NOT NULL,
    holder_kind TEXT NOT NULL,
    holder TEXT NOT NULL,
    valid_from_ms INTEGER NOT NULL,
    revoked_ms INTEGER,
    PRIMARY KEY (keyid)
);

CREATE INDEX ix_signing_keys_holder ON signing_keys (holder);

CREATE TABLE transfers (
    id BLOB NOT NULL,
    debit_id BLOB NOT NULL,
    credit_id BLOB NOT NULL,
    amount_uusd INTEGER NOT NULL,
    kind TEXT NOT NULL,
    job_id BLOB,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (id)
) WITHOUT ROWID;

CREATE INDEX ix_transfers_credit_id_id ON transfers (credit_id, id);

CREATE INDEX ix_transfers_debit_id_id ON transfers (debit_id, id);

CREATE TABLE users (
    id BLOB NOT NULL,
    username TEXT NOT NULL,
    username_folded TEXT NOT NULL,
    email TEXT,
    email_folded TEXT,
    password_hash TEXT,
    role TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (id)
) WITHOUT ROWID;

CREATE UNIQUE INDEX uq_users_email_folded ON users (email_folded);

CREATE UNIQUE INDEX uq_users_username_folded ON users (username_folded);
