"""Migrations: one line of them, compiled anew equal to what ships, and what they make is what the rooms declare."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine
from tools import compile_migrations
from tools.migrations.declared import metadata, tables

from comptoir.kit.db import Database, open_database
from comptoir.migrations import DatabaseTooNew, Migration, shipped, upgrade
from comptoir.migrations.apply import statements
from tests.conftest import MakeDatabase
from tests.migrations.catalog import catalog

THINGS = Migration("9001", "9001_things", ("CREATE TABLE things (id INTEGER NOT NULL, PRIMARY KEY (id))",))
MORE = Migration("9002", "9002_more", ("CREATE TABLE more (id INTEGER NOT NULL)", "INSERT INTO more (id) VALUES (1)"))


@pytest.fixture
async def database(database_address: str) -> AsyncIterator[Database]:
    opened = open_database(database_address)
    yield opened
    await opened.close()


class TestScripts:
    def test_there_is_one_head_and_one_line_to_it(self) -> None:
        found = compile_migrations.scripts()

        assert [script.revision for script in found] == [f"{n:04d}" for n in range(1, len(found) + 1)]
        assert all(Path(script.path).name.startswith(script.revision + "_") for script in found)

    def test_what_ships_is_what_the_scripts_compile_to(self) -> None:
        there = {
            path.relative_to(compile_migrations.SQL).as_posix(): path.read_text()
            for path in compile_migrations.SQL.rglob("*.sql")
        }

        assert there == compile_migrations.compiled(), "run `make migration`"

    @pytest.mark.parametrize("dialect", compile_migrations.DIALECTS)
    def test_every_script_ships_for_every_database(self, dialect: str) -> None:
        assert [one.revision for one in shipped(dialect)] == [one.revision for one in compile_migrations.scripts()]


class TestStatements:
    def test_they_end_where_a_line_ends_with_a_semicolon(self) -> None:
        text = "-- a comment; with one\n\nCREATE TABLE a (\n    b TEXT\n);\n\nINSERT INTO a (b) VALUES ('x;y');\n"

        assert statements(text) == ("CREATE TABLE a (\n    b TEXT\n)", "INSERT INTO a (b) VALUES ('x;y')")


class TestUpgrade:
    async def test_an_empty_database_gets_all_of_them(self, database: Database) -> None:
        assert await upgrade(database) == len(shipped(database.dialect))

        assert await database.fetch("SELECT version_num FROM alembic_version") == [
            (shipped(database.dialect)[-1].revision,)
        ]
        assert await database.fetch("SELECT count(*) FROM jobs") == [(0,)]

    async def test_the_second_time_nothing_is_done_and_it_takes_no_time(self, database: Database) -> None:
        began_s = time.perf_counter()
        await upgrade(database)
        first_s = time.perf_counter() - began_s
        commands = database.stats.commands

        took_s = []
        for _ in range(5):
            began_s = time.perf_counter()
            assert await upgrade(database) == 0
            took_s.append(time.perf_counter() - began_s)

        assert database.stats.commands == commands
        assert min(took_s) < first_s / 5

    async def test_only_those_that_lack_are_applied(self, database: Database) -> None:
        assert await upgrade(database, [THINGS]) == 1
        assert await upgrade(database, [THINGS, MORE]) == 1

        assert await database.fetch("SELECT id FROM more") == [(1,)]
        assert await database.fetch("SELECT version_num FROM alembic_version") == [("9002",)]

    async def test_a_new_database_says_so_in_one_line_and_an_old_one_what_it_got(
        self, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="comptoir.migrations")
        last = Migration("9003", "9003_last", ("CREATE TABLE last (id INTEGER PRIMARY KEY)",))
        await upgrade(database, [THINGS, MORE])
        await upgrade(database, [THINGS, MORE, last])

        assert caplog.messages == ["the database is new: 2 migrations applied", "migration 9003_last applied"]

    async def test_a_newer_database_is_refused_with_both_revisions(self, database: Database) -> None:
        await upgrade(database, [THINGS, MORE])

        with pytest.raises(DatabaseTooNew, match=r"9002.*9001") as refused:
            await upgrade(database, [THINGS])

        assert (refused.value.stands_at, refused.value.known) == ("9002", "9001")

    async def test_a_migration_that_fails_leaves_nothing_behind(
        self, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.CRITICAL)
        broken = Migration("9002", "9002_broken", (MORE.statements[0], "INSERT INTO nowhere (id) VALUES (1)"))
        await upgrade(database, [THINGS])

        with pytest.raises(Exception, match=r"nowhere|out of order"):
            await upgrade(database, [THINGS, broken])

        assert await database.fetch("SELECT version_num FROM alembic_version") == [("9001",)]
        assert await upgrade(database, [THINGS, MORE]) == 1

    async def test_coordinators_that_start_at_once_apply_each_once(self, database_address: str) -> None:
        both = [open_database(database_address) for _ in range(2)]
        try:
            done = await asyncio.gather(*(upgrade(one) for one in both))
        finally:
            for one in both:
                await one.close()

        assert sum(done) == len(shipped(both[0].dialect))


class TestDrift:
    async def test_migrations_make_what_the_rooms_declare(
        self, database_address: str, tmp_path: Path, make_database: MakeDatabase
    ) -> None:
        async with make_database(tables()) as declared:
            wanted = await catalog(declared)
            # The same address, emptied, so that both are of one kind.
            for table in tables():
                await declared.run(lambda tx, name=table.name: tx.execute(f"DROP TABLE {name}"))
            await upgrade(declared)
            made = await catalog(declared)

        assert len(wanted) > 100
        assert made == wanted

    async def test_a_missing_index_is_seen(self, database: Database) -> None:
        await upgrade(database)
        before = await catalog(database)

        await database.run(lambda tx: tx.execute("DROP INDEX ix_jobs_id_partial"))

        assert {entry[2] for entry in before - await catalog(database)} == {"ix_jobs_id_partial"}

    def test_alembic_sees_nothing_left_to_write(self, tmp_path: Path) -> None:
        engine = create_engine(f"sqlite:///{tmp_path}/head.db")
        with engine.connect() as connection:
            config = compile_migrations.config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
            left = compare_metadata(MigrationContext.configure(connection), metadata())
        engine.dispose()

        assert left == []

    async def test_alembic_agrees_where_a_database_stands(self, tmp_path: Path) -> None:
        opened = open_database(str(tmp_path / "c.db"))
        await upgrade(opened)
        await opened.close()

        engine = create_engine(f"sqlite:///{tmp_path}/c.db")
        with engine.connect() as connection:
            stands_at = MigrationContext.configure(connection).get_current_revision()
        engine.dispose()

        assert stands_at == compile_migrations.scripts()[-1].revision
