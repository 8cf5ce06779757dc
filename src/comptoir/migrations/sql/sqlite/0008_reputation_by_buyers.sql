-- Compiled from tools/migrations/versions/0008_reputation_by_buyers.py for sqlite. Never edit it; see docs/adding/a-migration.md.

ALTER TABLE hosts ADD COLUMN evidence BLOB;
