-- Compiled from tools/migrations/versions/0006_needs.py for postgresql. Never edit it; see docs/adding/a-migration.md.

ALTER TABLE hosts ADD COLUMN capacity BYTEA;

ALTER TABLE jobs ADD COLUMN needs BYTEA;
