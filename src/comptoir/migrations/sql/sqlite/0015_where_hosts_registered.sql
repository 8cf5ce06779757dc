-- Compiled from tools/migrations/versions/0015_where_hosts_registered.py for sqlite. Never edit it; see docs/adding/a-migration.md.

ALTER TABLE hosts ADD COLUMN address_block TEXT;
