"""What the documents name exists, and what exists is in them: files and functions, words, messages, commands, sums."""

import ast
import re
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import get_args

import pytest

from comptoir.cli.main import COMMANDS
from comptoir.dialects import DIALECTS
from comptoir.jobs import AttemptState, Fault, JobState
from comptoir.kit.http import Dialect
from comptoir.kit.money import (
    TOKENS_PER_MTOK,
    UUSD_PER_CREDIT,
    cost_half_even,
    fee_of,
    price_from_usd_per_token,
    run_price,
)
from comptoir.link import FromCoordinator, FromWorker
from comptoir.settings import Settings
from tests.house import tree

REFERENCE = re.compile(r"`([\w./-]+\.py)(?::([A-Za-z_][\w.]*))?`")
FOLDER = re.compile(r"`((?:[a-z_]+/)+[a-z_]*)`")

WORDS = (
    "identity", "account", "host", "worker", "engine", "link", "cloud", "dialect", "protocol", "offer", "quote", "job",
    "attempt", "lease", "frame", "hold", "transfer", "receipt", "tx", "token", "key",
)  # fmt: skip
"""Those that the design fixed; the glossary may have more."""

INNER = "/ui/"
"""Paths that only the page itself asks."""

NO_SETTINGS = {"endpoint_url"}
"""Fields of requests that are spelled like a setting."""


def pages() -> list[str]:
    """Return the documents that speak of the code as it is; a decision speaks of the day it was made."""
    return [path for path in tree.files() if path.endswith(".md") and not path.startswith("docs/decisions/")]


def text_of(path: str) -> str:
    """Return a document."""
    return (tree.ROOT / path).read_text()


@cache
def names_of(path: str) -> frozenset[str]:
    """Return what a Python file defines at its top and in its classes: ``submit``, ``Core.spawn``, ``SWEEP_S``."""
    return frozenset(_defined(tree.parsed((tree.ROOT / path).read_text()).body, ""))


def _defined(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from _defined(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign):
            yield from (prefix + target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield prefix + node.target.id


def place_of(path: str) -> str | None:
    """Return where a document's *path* is in the repository: below the package, or from the root."""
    return next((place for place in (f"src/comptoir/{path}", path) if (tree.ROOT / place).exists()), None)


def untrue(text: str) -> list[str]:
    """Return the references of a document to files or names that do not exist; a bare ``routes.py`` is any
    dialect's."""
    wrong = []
    for path, name in REFERENCE.findall(text):
        if "NNNN" in path:
            continue  # A name to be made.
        place = place_of(path)
        if place is None:
            wrong += [path] if "/" in path or name else []
        elif name and name not in names_of(place):
            wrong.append(f"{path}:{name}")
    return wrong


class TestReferences:
    @pytest.mark.parametrize("path", pages())
    def test_every_file_and_function_that_is_named_exists(self, path: str) -> None:
        assert untrue(text_of(path)) == []

    def test_the_architecture_names_many(self) -> None:
        found = REFERENCE.findall(text_of("ARCHITECTURE.md"))

        assert len([name for _, name in found if name]) > 60

    def test_every_folder_of_the_architecture_exists(self) -> None:
        assert [path for path in FOLDER.findall(text_of("ARCHITECTURE.md")) if place_of(path) is None] == []

    @pytest.mark.parametrize(
        ("text", "wrong"),
        [
            ("`kit/nothing.py`", ["kit/nothing.py"]),
            ("`kit/money.py:nothing`", ["kit/money.py:nothing"]),
            ("`kit/ids.py:new_id` `tests/post.py:Post.worker` `routes.py`", []),
        ],
    )
    def test_an_untrue_reference_is_found(self, text: str, wrong: list[str]) -> None:
        assert untrue(text) == wrong


class TestGlossary:
    rows = re.findall(r"^\| ([^|]+) \|", text_of("docs/glossary.md"), re.MULTILINE)

    def test_every_word_of_the_design_is_there(self) -> None:
        assert set(WORDS) - set(self.rows) == set()

    def test_each_word_once_in_order(self) -> None:
        words = [word for word in self.rows if word != "Word"]

        assert words == sorted(set(words))


class TestLifecycle:
    @pytest.mark.parametrize("name", [*JobState, *AttemptState, *(fault for fault in Fault if fault)])
    def test_every_state_and_fault_is_told(self, name: str) -> None:
        assert re.search(rf"\b{name}\b", text_of("docs/lifecycle.md"))


class TestLink:
    @pytest.mark.parametrize(
        "message", [*get_args(FromWorker), *get_args(FromCoordinator)], ids=lambda one: one.__name__
    )
    def test_every_message_is_told_with_its_fields(self, message: type) -> None:
        tag = message.__struct_config__.tag  # type: ignore[attr-defined]
        fields = ", ".join(message.__struct_fields__) or "–"  # type: ignore[attr-defined]

        assert f"| `{tag}` | {fields} |" in text_of("docs/link.md")


class TestDialects:
    @pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.name)
    def test_every_dialect_has_a_page_that_names_every_path(self, dialect: Dialect) -> None:
        """A path with a parameter counts by what stands before it: pages name parameters for people."""
        page = text_of(f"docs/dialects/{dialect.name}.md")
        prefix = "" if dialect.at_root else dialect.prefix
        paths = {prefix + one.path.partition("{")[0] for one in (*dialect.endpoints, *dialect.sockets)}

        assert {path for path in paths if path not in page and not path.startswith(INNER)} == set()


class TestCommands:
    told = re.findall(r"^\| `comptoir ([a-z]+)`", text_of("docs/commands.md"), re.MULTILINE)

    def test_every_command_has_a_line_and_every_line_a_command(self) -> None:
        assert sorted(self.told) == sorted(entry.name for entry in COMMANDS)

    def test_every_command_that_a_page_types_exists(self) -> None:
        typed = {
            word
            for path in pages()
            for word in re.findall(r"(?:^|`|\$ )comptoir ([a-z]+)\b", text_of(path), re.MULTILINE)
        }

        assert typed - {entry.name for entry in COMMANDS} == set()


class TestSettings:
    def test_every_setting_is_read_by_the_code_it_bounds(self) -> None:
        """A bound that nobody reads is a promise in the reference and nothing behind it."""
        files = [path for path in tree.python_files() if path.startswith("src/")]
        sources = [path for path in files if not path.startswith("src/comptoir/settings/")]
        code = "\n".join((tree.ROOT / path).read_text() for path in sources)

        assert [name for name in Settings.__struct_fields__ if not re.search(rf"\.{name}\b", code)] == []

    def test_every_setting_that_operating_and_security_name_exists(self) -> None:
        fields = set(Settings.__struct_fields__)
        ending = r"s|max|days|bps|uusd|urls|keys|registration|origins|proxies|url|ip|minute|format|level"
        name = re.compile(rf"`([a-z]+(?:_[a-z]+)*_(?:{ending}))`")
        spoken = {
            found
            for page in ("operating", "security", "lifecycle")
            for found in name.findall(text_of(f"docs/{page}.md"))
        }

        assert len(spoken) > 15
        assert spoken - fields - NO_SETTINGS == set()


WALK_FILES_MAX = 10
"""Files that a newcomer opens to follow one job from its request to its receipt."""


class TestWalk:
    def test_one_job_is_told_in_few_files(self) -> None:
        page = text_of("ARCHITECTURE.md")
        walk = page[page.index("## One job from the OpenAI SDK") :]
        rows = [line for line in walk[: walk.index("\n\nOn the way in")].splitlines() if re.match(r"\| \d", line)]
        files = {
            name for row in rows for name in re.findall(r"`([a-z_/]+\.py):", row.rpartition("|")[0].rpartition("|")[2])
        }

        assert len(rows) > 8 and 1 < len(files) <= WALK_FILES_MAX, sorted(files)


class TestMoney:
    def test_the_worked_example_is_what_the_code_computes(self) -> None:
        page = text_of("docs/money.md")
        price = price_from_usd_per_token(Decimal("0.0001"))
        hold, cost = cost_half_even(256 * price), cost_half_even(192 * price)
        fee = fee_of(cost, Settings().fee_bps)

        assert (price, hold / UUSD_PER_CREDIT) == (100_000_000, 2.56)
        told = {"hold": hold, "tokens": cost, "fee": fee, "to the host": cost - fee, "free again": hold - cost}
        for row, amount in told.items():
            sums = rf"\| {amount:,} \| {amount / UUSD_PER_CREDIT:g} \|$"
            assert re.search(rf"^\|[^|]*{row}[^|]*\|[^|]*{sums}", page, re.MULTILINE), row

    def test_the_chain_is_what_the_code_computes(self) -> None:
        page = text_of("docs/money.md")
        prices = [2_000, 5_000, 1_000]
        caps = [run_price(price * TOKENS_PER_MTOK) for price in prices]
        costs = [cost_half_even(price * TOKENS_PER_MTOK) for price in prices]
        fees = [fee_of(cost, Settings().fee_bps) for cost in costs]

        told = {
            "hold": sum(caps),
            "all three run: cost": sum(costs),
            "to the hosts": sum(costs) - sum(fees),
            "all fees": sum(fees),
            "the third fails for good: cost": sum(costs[:2]),
            "its fees": sum(fees[:2]),
            "free again then": sum(caps) - sum(costs[:2]),
        }
        for row, amount in told.items():
            sums = rf"\| {amount:,} \| {amount / UUSD_PER_CREDIT:g} \|$"
            assert re.search(rf"^\| {row} \|[^|]*{sums}", page, re.MULTILINE), row
