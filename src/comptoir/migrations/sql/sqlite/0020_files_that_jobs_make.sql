-- Compiled from tools/migrations/versions/0020_files_that_jobs_make.py for sqlite. Never edit it; see docs/adding/a-migration.md.

ALTER TABLE file_keeps ADD COLUMN made_by TEXT;
