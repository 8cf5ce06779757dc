-- Compiled from tools/migrations/versions/0006_needs.py for sqlite. Never edit it; see docs/adding/a-migration.md.

ALTER TABLE hosts ADD COLUMN capacity BLOB;

ALTER TABLE jobs ADD COLUMN needs BLOB;
