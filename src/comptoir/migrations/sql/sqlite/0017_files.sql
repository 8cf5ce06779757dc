-- Compiled from tools/migrations/versions/0017_files.py for sqlite. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE file_contents (
    sha256 BLOB NOT NULL,
    size INTEGER NOT NULL,
    place BLOB NOT NULL,
    PRIMARY KEY (sha256)
);

CREATE TABLE file_keeps (
    file_id BLOB NOT NULL,
    keeper TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (file_id, keeper)
) WITHOUT ROWID;

CREATE INDEX ix_file_keeps_keeper ON file_keeps (keeper);

CREATE TABLE file_parts (
    place BLOB NOT NULL,
    start INTEGER NOT NULL,
    size INTEGER NOT NULL,
    object_id BLOB NOT NULL,
    PRIMARY KEY (place, start)
) WITHOUT ROWID;

CREATE TABLE file_trash (
    place BLOB NOT NULL,
    since_ms INTEGER NOT NULL,
    erased_ms INTEGER,
    PRIMARY KEY (place)
) WITHOUT ROWID;

CREATE INDEX ix_file_trash_since_ms ON file_trash (since_ms);

CREATE TABLE file_usage (
    owner_id BLOB NOT NULL,
    bytes_counted INTEGER NOT NULL,
    files_counted INTEGER NOT NULL,
    PRIMARY KEY (owner_id)
) WITHOUT ROWID;

CREATE TABLE files (
    id BLOB NOT NULL,
    owner_id BLOB NOT NULL,
    place BLOB NOT NULL,
    name TEXT NOT NULL,
    media TEXT NOT NULL,
    size INTEGER,
    stored INTEGER NOT NULL,
    parts INTEGER NOT NULL,
    sha256 BLOB,
    expected BLOB,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    PRIMARY KEY (id)
) WITHOUT ROWID;

CREATE INDEX ix_files_expires_ms_partial ON files (expires_ms) WHERE expires_ms IS NOT NULL;

CREATE INDEX ix_files_owner_id_id ON files (owner_id, id);

CREATE INDEX ix_files_sha256 ON files (sha256);
