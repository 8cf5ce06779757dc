"""What is read in the event loop is a point: no other SQL gets there, and each is found by an index."""

import ast
import itertools
import sqlite3

from tools.migrations.declared import tables

from comptoir.kit.db import Table, ddl
from comptoir.kit.db.points import few_query, keys_query, point_query
from tests.house import tree

ENGINE = "src/comptoir/kit/db/engine.py"

MAKERS = {"_read_by_key", "evaluate"}
"""What makes its SQL from a table's declaration, or reads no table."""


def readers_of(text: str) -> set[str]:
    """Return the functions of a module that call ``_read_point`` or ``_store.read``."""
    found: set[str] = set()
    if "_read_point" not in text and "_store.read(" not in text:
        return found
    for function in tree.nodes(text):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and (
                    node.attr == "_read_point"
                    or (node.attr == "read" and isinstance(node.value, ast.Attribute) and node.value.attr == "_store")
                ):
                    found.add(function.name)
    return found


class TestInline:
    def test_only_points_are_read_there(self) -> None:
        assert readers_of((tree.ROOT / ENGINE).read_text()) == MAKERS | {"_read_point", "_read"}

    def test_what_reads_by_key_takes_a_table(self) -> None:
        """And no SQL."""
        callers = {
            function.name: [one.arg for one in function.args.args]
            for function in tree.nodes((tree.ROOT / ENGINE).read_text())
            if isinstance(function, ast.AsyncFunctionDef)
            and any(isinstance(node, ast.Attribute) and node.attr == "_read_by_key" for node in ast.walk(function))
        }

        assert set(callers) == {"fetch_point", "fetch_few", "fetch_keys"}
        assert all(taken[:3] == ["self", "table", "columns"] for taken in callers.values())

    def test_nobody_reaches_past_them(self) -> None:
        sources = [path for path in tree.python_files() if path.startswith("src/") and path != ENGINE]

        assert {path: found for path in sources if (found := readers_of((tree.ROOT / path).read_text()))} == {}

    def test_another_one_is_found(self) -> None:
        planted = "class Database:\n    async def fetch(self, sql):\n        return self._store.read(sql, ())\n"

        assert readers_of(planted) == {"fetch"}


def queries(table: Table) -> list[str]:
    """Return every kind of point read of *table*."""
    made = [point_query(table, table.names, by) for by in (table.key, *table.unique)]
    made.append(keys_query(table, table.names, 3))
    for index in (table.key, *table.unique, *table.indexes):
        made += [few_query(table, table.names, index[:size], 17) for size in range(1, len(index) + 1)]
    return made


class TestPlans:
    def test_each_searches_an_index(self) -> None:
        stored = sqlite3.connect(":memory:")
        for statement in itertools.chain.from_iterable(ddl(table, "sqlite") for table in tables()):
            stored.execute(statement)

        for table in tables():
            for sql in queries(table):
                plan = stored.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?")).fetchall()
                words = "; ".join([row[-1] for row in plan])
                assert words.startswith(f"SEARCH {table.name} USING") and "SCAN" not in words, (sql, words)
        stored.close()
