"""The core knows no trade: dispatch, jobs and routing say neither "container" nor "infernet" in code; docstrings may,
as examples.

What only one published API needs stands above them (docs/decisions/0029). The list of what is left only shrinks.
"""

import ast
from collections.abc import Iterator

import pytest

from tests.house import tree

CORE = tuple(f"src/comptoir/{room}/" for room in ("dispatch", "jobs", "routing"))
WORDS = ("container", "infernet")

LEFT = frozenset({("src/comptoir/routing/filters.py", "container's door")})
"""File and name or string that still says it. Nothing is added."""


def said(text: str) -> Iterator[str]:
    """Yield every name and every string of *text* that says one of `WORDS`; strings that stand alone are docstrings."""
    docstrings = {id(node.value) for node in tree.nodes(text) if isinstance(node, ast.Expr)}
    for node in tree.nodes(text):
        for _, value in ast.iter_fields(node):
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, str) and id(node) not in docstrings and any(word in each.lower() for word in WORDS):
                    yield each


def judge(found: set[tuple[str, str]], left: frozenset[tuple[str, str]]) -> list[str]:
    """Return what is wrong: words that are not on the list, entries of the list that are no longer said."""
    return [f"{path} says {words!r}" for path, words in sorted(found - left)] + [
        f"{path}: {words!r} is gone, so its entry goes" for path, words in sorted(left - found)
    ]


class TestCoreWords:
    def test_the_core_says_neither(self) -> None:
        paths = [path for path in tree.python_files() if path.startswith(CORE) and not path.endswith("/testing.py")]
        assert len(paths) > 20

        found = {(path, words) for path in paths for words in said((tree.ROOT / path).read_text())}

        assert judge(found, LEFT) == []

    @pytest.mark.parametrize(
        "code",
        [
            "from comptoir.containers import admit\n",
            "import comptoir.dialects.infernet\n",
            "def f(container): ...\n",
            "f(containers=1)\n",
            "card = offer.container\n",
            "CONTAINER_MESSAGE_CHARS_MAX = 1\n",
            "class Container: ...\n",
            "if kind == 'container': ...\n",
            "why = f'an Infernet node says {why}'\n",
        ],
    )
    def test_a_planted_word_is_found(self, code: str) -> None:
        assert judge({("a.py", words) for words in said(code)}, frozenset()) != []

    def test_a_docstring_may_say_it(self) -> None:
        assert list(said('"""Of a container."""\nclass A:\n    x = 1\n    """Of Infernet."""\n')) == []

    def test_an_entry_without_need_goes(self) -> None:
        assert judge(set(), frozenset({("a.py", "container")})) == ["a.py: 'container' is gone, so its entry goes"]
