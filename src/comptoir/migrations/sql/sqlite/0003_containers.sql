-- Compiled from tools/migrations/versions/0003_containers.py for sqlite. Never edit it; see docs/adding/a-migration.md.

CREATE TABLE recorded (
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    containers TEXT NOT NULL,
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
);

CREATE INDEX ix_recorded_scope_updated_ms ON recorded (scope, updated_ms);

CREATE INDEX ix_recorded_updated_ms ON recorded (updated_ms);

ALTER TABLE jobs ADD COLUMN caller TEXT;

ALTER TABLE jobs ADD COLUMN steps BLOB;

CREATE INDEX ix_jobs_owner_id_id_partial ON jobs (owner_id, id) WHERE caller IS NOT NULL;

CREATE INDEX ix_jobs_owner_id_caller_id_partial ON jobs (owner_id, caller, id) WHERE caller IS NOT NULL;
