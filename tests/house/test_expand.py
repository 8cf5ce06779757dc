"""An upgrade without downtime: old and new coordinators write one database at the same time, so a migration only adds.

What takes away or tightens is a migration of its own, later, when no coordinator of the old kind runs any more. Its
docstring has a line that begins with ``Contract:`` and says so (docs/adding/a-migration.md).
"""

import re
from collections.abc import Sequence

import pytest
from tools import compile_migrations

from comptoir.migrations import shipped
from tests.house import tree

FIRST = "0001"
NAME = r'"?(\w+)"?'
CONTRACT = re.compile(r"^Contract: \S.{20,}", re.MULTILINE)

BREAKS = {
    "takes a table, column or constraint from old writers": r"\bDROP\s+(TABLE|COLUMN|CONSTRAINT|SCHEMA|VIEW)\b",
    "gives another name to what old writers know": r"\bRENAME\b",
    "changes a type under old readers": r"\bALTER\s+COLUMN\s+\S+\s+(SET\s+DATA\s+)?TYPE\b",
    "asks old writers for what they do not give": r"\bSET\s+NOT\s+NULL\b|\bDROP\s+DEFAULT\b",
    "refuses rows that old writers make": r"\bADD\s+(CONSTRAINT|CHECK|UNIQUE|FOREIGN|PRIMARY)\b",
}
MANDATORY = re.compile(r"\bADD\s+(COLUMN\s+)?(?!CONSTRAINT\b)\w+\s(?=.*\bNOT\s+NULL\b)(?!.*\bDEFAULT\b)", re.I | re.S)
UNIQUE = re.compile(rf"\bCREATE\s+UNIQUE\s+INDEX\s+.*?\bON\s+{NAME}", re.I | re.S)
CREATED = re.compile(rf"\bCREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?{NAME}", re.I)


def breaks(statements: Sequence[str]) -> list[str]:
    """Return what of a migration stands in the way of coordinators that know only the schema before it."""
    fresh = {found[1] for statement in statements if (found := CREATED.search(statement))}
    wrong = []
    for statement in statements:
        line = " ".join(statement.split())[:100]
        wrong += [f"{why}: {line}" for why, rule in BREAKS.items() if re.search(rule, statement, re.IGNORECASE)]
        if MANDATORY.search(statement):
            wrong.append(f"asks old writers for what they do not give: {line}")
        unique = UNIQUE.search(statement)
        if unique and unique[1] not in fresh:
            wrong.append(f"refuses rows that old writers make: {line}")
    return wrong


class TestShipped:
    @pytest.mark.parametrize("dialect", compile_migrations.DIALECTS)
    def test_every_migration_after_the_first_only_adds(self, dialect: str) -> None:
        contracts = {one.revision for one in compile_migrations.scripts() if CONTRACT.search(one.doc or "")}
        later = [one for one in shipped(dialect) if one.revision != FIRST and one.revision not in contracts]

        assert len(shipped(dialect)) > 1
        assert {one.name: breaks(one.statements) for one in later if breaks(one.statements)} == {}


class TestRules:
    @pytest.mark.parametrize(
        "statement",
        [
            "DROP TABLE jobs",
            "ALTER TABLE jobs DROP COLUMN node_id",
            "ALTER TABLE jobs RENAME COLUMN node_id TO owner",
            "ALTER TABLE jobs RENAME TO works",
            "ALTER TABLE jobs ALTER COLUMN node_id TYPE TEXT",
            "ALTER TABLE jobs ALTER COLUMN node_id SET DATA TYPE TEXT",
            "ALTER TABLE jobs ALTER COLUMN node_id SET NOT NULL",
            "ALTER TABLE jobs ADD COLUMN node_id BYTEA NOT NULL",
            "ALTER TABLE jobs ADD node_id BYTEA NOT NULL",
            "ALTER TABLE jobs ADD CONSTRAINT positive CHECK (created_ms > 0)",
            "CREATE UNIQUE INDEX uq_jobs_node_id ON jobs (node_id)",
        ],
    )
    def test_what_breaks_old_coordinators_is_found(self, statement: str) -> None:
        assert len(breaks([statement])) == 1

    def test_what_only_adds_passes(self) -> None:
        fine = [
            "CREATE TABLE nodes (id BYTEA NOT NULL, PRIMARY KEY (id))",
            "CREATE UNIQUE INDEX uq_nodes_id ON nodes (id)",
            "ALTER TABLE jobs ADD COLUMN node_id BYTEA",
            "ALTER TABLE jobs ADD COLUMN restarts BIGINT DEFAULT 0 NOT NULL",
            "CREATE INDEX ix_jobs_node_id ON jobs (node_id)",
            "DROP INDEX ix_jobs_id_partial",
            "UPDATE jobs SET restarts = 0 WHERE restarts IS NULL",
        ]

        assert breaks(fine) == []

    @pytest.mark.parametrize(
        ("doc", "marked"),
        [
            ("Drop the old price.\n\nContract: since 0.3 nobody reads attempts.price.", True),
            ("Drop the old price. Contract: not at the start of a line.", False),
            ("Drop it.\n\nContract: yes", False),
        ],
    )
    def test_a_contract_says_why_nobody_is_hurt(self, doc: str, marked: bool) -> None:
        assert bool(CONTRACT.search(doc)) is marked


class TestDocument:
    def test_the_recipe_has_the_rule(self) -> None:
        page = (tree.ROOT / "docs/adding/a-migration.md").read_text()

        assert "Contract:" in page
        assert "Expand, migrate, contract" in page
