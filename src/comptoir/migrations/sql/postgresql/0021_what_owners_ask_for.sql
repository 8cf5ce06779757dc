-- Compiled from tools/migrations/versions/0021_what_owners_ask_for.py for postgresql. Never edit it; see docs/adding/a-migration.md.

ALTER TABLE accounts ADD COLUMN asked_events BIGINT;

UPDATE accounts SET asked_events = 7 WHERE id IN (SELECT owner_id FROM webhooks WHERE types = '');
