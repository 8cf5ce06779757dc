-- Compiled from tools/migrations/versions/0017_files.py for postgresql. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE file_contents (
    sha256 BYTEA NOT NULL,
    size BIGINT NOT NULL,
    place BYTEA NOT NULL,
    PRIMARY KEY (sha256)
);

CREATE TABLE file_keeps (
    file_id BYTEA NOT NULL,
    keeper TEXT NOT NULL,
    since_ms BIGINT NOT NULL,
    PRIMARY KEY (file_id, keeper)
);

CREATE INDEX ix_file_keeps_keeper ON file_keeps (keeper);

CREATE TABLE file_parts (
    place BYTEA NOT NULL,
    start BIGINT NOT NULL,
    size BIGINT NOT NULL,
    object_id BYTEA NOT NULL,
    PRIMARY KEY (place, start)
);

CREATE TABLE file_trash (
    place BYTEA NOT NULL,
    since_ms BIGINT NOT NULL,
    erased_ms BIGINT,
    PRIMARY KEY (place)
);

CREATE INDEX ix_file_trash_since_ms ON file_trash (since_ms);

CREATE TABLE file_usage (
    owner_id BYTEA NOT NULL,
    bytes_counted BIGINT NOT NULL,
    files_counted BIGINT NOT NULL,
    PRIMARY KEY (owner_id)
);

CREATE TABLE files (
    id BYTEA NOT NULL,
    owner_id BYTEA NOT NULL,
    place BYTEA NOT NULL,
    name TEXT NOT NULL,
    media TEXT NOT NULL,
    size BIGINT,
    stored BIGINT NOT NULL,
    parts BIGINT NOT NULL,
    sha256 BYTEA,
    expected BYTEA,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT,
    PRIMARY KEY (id)
);

CREATE INDEX ix_files_expires_ms_partial ON files (expires_ms) WHERE expires_ms IS NOT NULL;

CREATE INDEX ix_files_owner_id_id ON files (owner_id, id);

CREATE INDEX ix_files_sha256 ON files (sha256);
