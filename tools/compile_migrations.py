"""Compile Alembic's scripts to the SQL that ships, and begin new ones.

``python -m tools.compile_migrations`` writes src/comptoir/migrations/sql; ``… new "what changes"`` first has Alembic
compare the rooms' declarations with a database at head and writes a script for the difference.
"""

import io
import re
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import create_engine

ROOT = Path(__file__).resolve().parents[1]
SQL = ROOT / "src" / "comptoir" / "migrations" / "sql"
DIALECTS = ("sqlite", "postgresql")

SLUG = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
HEADER = "-- Compiled from tools/migrations/versions/{name}.py for {dialect}. Never edit it; see docs/adding/a-migration.md.\n\n"


def config() -> Config:
    """Return Alembic's configuration, whatever the working directory."""
    found = Config(str(ROOT / "alembic.ini"))
    found.set_main_option("script_location", str(ROOT / "tools" / "migrations"))
    return found


def scripts() -> list[Script]:
    """Return every migration, oldest first.

    Raises:
        alembic.util.CommandError: there is more than one head.
    """
    directory = ScriptDirectory.from_config(config())
    directory.get_current_head()
    return list(reversed(list(directory.walk_revisions())))


def compiled() -> dict[str, str]:
    """Return the SQL of every migration, by path below `SQL`."""
    return {
        f"{dialect}/{Path(script.path).stem}.sql": compile_one(script, dialect)
        for dialect in DIALECTS
        for script in scripts()
    }


def compile_one(script: Script, dialect: str) -> str:
    """Return one migration as SQL: each statement ends with a semicolon at the end of a line."""
    out = io.StringIO()
    context = MigrationContext.configure(
        dialect_name=dialect, opts={"as_sql": True, "output_buffer": out, "literal_binds": True}
    )
    with Operations.context(context):
        script.module.upgrade()
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    body = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip().replace("\n)\n WITHOUT ROWID;", "\n) WITHOUT ROWID;")
    return HEADER.format(name=Path(script.path).stem, dialect=dialect) + body + "\n"


def begin(slug: str) -> str:
    """Have Alembic write a script for what the rooms declare beyond head; return its path.

    Raises:
        ValueError: *slug* is not lower-case words with underscores.
    """
    if not SLUG.fullmatch(slug):
        raise ValueError(f"{slug!r}: name the migration in lower-case words with underscores")
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{folder}/head.db")
        with engine.connect() as connection:
            alembic = config()
            alembic.attributes["connection"] = connection
            command.upgrade(alembic, "head")
            connection.commit()
            number = f"{len(scripts()) + 1:04d}"
            made = command.revision(alembic, message=slug, autogenerate=True, rev_id=number)
        engine.dispose()
    assert isinstance(made, Script)
    return made.path


def write() -> list[str]:
    """Write what `compiled` gives, remove what it does not; return the paths that changed."""
    wanted = compiled()
    changed = []
    for path in (file for dialect in DIALECTS for file in (SQL / dialect).glob("*.sql")):
        if path.relative_to(SQL).as_posix() not in wanted:
            path.unlink()
            changed.append(str(path))
    for name, text in wanted.items():
        path = SQL / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            changed.append(str(path))
    return changed


def main(words: list[str]) -> None:
    """Run the command line."""
    if words[:1] == ["new"]:
        print(f"{begin('_'.join(words[1:]))}: read it, mend it, then run `make migration` again without NAME")
    for path in write():
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
