-- Compiled from tools/migrations/versions/0019_bounds_that_grow.py for sqlite. Never edit it; see docs/adding/a-migration.md.

ALTER TABLE jobs ADD COLUMN grows_by INTEGER;
