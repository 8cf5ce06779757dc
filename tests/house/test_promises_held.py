"""Every promise of docs/security.md and docs/configuration.md names the tests that hold it, and those tests exist."""

import ast
import re
from functools import cache

import pytest

from comptoir.settings import FIELDS
from tests.house import tree

PAGE = tree.ROOT / "docs" / "security.md"
HEADING = "\n## What holds each promise\n"
NO_TEST = "told, not guarded"
"""Of what is only said, so that everybody knows: a warning is no promise."""
ROW = re.compile(r"^\| (?P<said>.+?) \| (?P<held>[^|]+) \|$", re.MULTILINE)
TEST = re.compile(r"`([^`:]+\.py)::(test_\w+)`")


def parts(text: str) -> tuple[str, str]:
    """Return what is said, and the tables of what holds it."""
    said, heading, held = text.partition(HEADING)
    assert heading, "the tables are gone"
    return said, held


def one_line(text: str) -> str:
    return " ".join(text.split())


def statements(said: str) -> list[str]:
    """Return every list item and every row of a table: what is stated one by one."""
    found, item = [], ""
    for line in [*said.splitlines(), ""]:
        if line.startswith("- "):
            found, item = [*found, item], line[2:]
        elif line.startswith("  ") and item:
            item += " " + line.strip()
        else:
            found, item = [*found, item], ""
            if (
                line.startswith("|")
                and not re.fullmatch(r"\|[-|: ]+\|", line)
                and "| What " not in line + " "
                and "| Who |" not in line
            ):
                found.append(line)
    return [one_line(one) for one in found if one]


def rows(held: str) -> dict[str, str]:
    """Return what each row says of what holds it, but for the heads of the tables."""
    return {row["said"]: row["held"] for row in ROW.finditer(held) if row["held"].strip() not in ("Held by", "---")}


@cache
def functions_of(path: str) -> frozenset[str]:
    file = tree.ROOT / "tests" / path
    if not file.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(file.read_text()))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def missing(held: dict[str, str]) -> list[str]:
    """Return the rows that name no test, or one that does not exist."""
    found = []
    for said, words in held.items():
        named = TEST.findall(words)
        if words != NO_TEST and (not named or any(name not in functions_of(path) for path, name in named)):
            found.append(f"{said}: {words}")
    return found


def unsaid(said: str, held: dict[str, str]) -> list[str]:
    """Return the rows that quote what is no longer said, and no setting."""
    text = one_line(said)
    return [one for one in held if one not in text and one.strip("`") not in FIELDS]


def unheld(said: str, held: dict[str, str]) -> list[str]:
    """Return the statements that no row quotes."""
    return [one for one in statements(said) if not any(quoted in one for quoted in held)]


class TestPromises:
    said, held = parts(PAGE.read_text())

    def test_every_test_that_is_named_exists(self) -> None:
        assert len(rows(self.held)) > 100
        assert missing(rows(self.held)) == []

    def test_what_a_row_quotes_is_still_said(self) -> None:
        assert unsaid(self.said, rows(self.held)) == []

    def test_every_statement_has_a_row(self) -> None:
        assert unheld(self.said, rows(self.held)) == [], "name the test that holds it in the tables of docs/security.md"

    def test_every_setting_has_a_row(self) -> None:
        named = {one.strip("`") for one in rows(self.held)}
        assert set(FIELDS) - named == set(), "name the test that holds it in the tables of docs/security.md"


SAID = "- All is\n  well.\n\n| What | Limit |\n|---|---|\n| a thing | `port` |\n"


class TestPlanted:
    @pytest.mark.parametrize(
        "words",
        ["", "surely", "`house/test_promises_held.py::test_nowhere`", "`nowhere.py::test_every_setting_has_a_row`"],
    )
    def test_a_test_that_is_not_there_is_found(self, words: str) -> None:
        assert missing({"All is well": words}) == [f"All is well: {words}"]
        assert (
            missing({"All is well": "`house/test_promises_held.py::test_every_setting_has_a_row`", "x": NO_TEST}) == []
        )

    def test_what_is_no_longer_said_is_found(self) -> None:
        assert unsaid(SAID, {"All is well": "", "`port`": "", "never": ""}) == ["never"]

    def test_a_statement_that_nobody_holds_is_found(self) -> None:
        assert unheld(SAID, {"All is well": ""}) == ["| a thing | `port` |"]
        assert unheld(SAID, {"a thing": "", "All is": ""}) == []
