-- Compiled from tools/migrations/versions/0004_what_hosts_speak.py for sqlite. Never edit it; see docs/adding/a-migration.md.

ALTER TABLE hosts ADD COLUMN speaks TEXT;
