-- Compiled from tools/migrations/versions/0014_whole_answers.py for sqlite. Never edit it; see docs/adding/a-migration.md.

ALTER TABLE jobs ADD COLUMN whole INTEGER;
