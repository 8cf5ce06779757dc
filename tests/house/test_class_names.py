"""Class names: each is defined once in src, so that a name in a traceback, a search or a sentence is one thing."""

import ast
from collections.abc import Iterator, Mapping

from tests.house import tree

EXCEPTIONS: frozenset[str] = frozenset()
"""Names that are defined more than once all the same. Empty, and nothing is added."""


def classes(text: str) -> Iterator[str]:
    """Give the name of every class that *text* defines, wherever it stands."""
    for node in tree.nodes(text):
        if isinstance(node, ast.ClassDef):
            yield node.name


def doubled(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the class names that are defined more than once, each with the paths of its definitions."""
    found: dict[str, list[str]] = {}
    for path, text in texts.items():
        for name in classes(text):
            found.setdefault(name, []).append(path)
    return {name: paths for name, paths in found.items() if len(paths) > 1 and name not in EXCEPTIONS}


class TestTree:
    def test_every_class_name_is_defined_once(self) -> None:
        paths = [path for path in tree.python_files() if path.startswith("src/")]

        assert doubled({path: (tree.ROOT / path).read_text() for path in paths}) == {}


class TestPlanted:
    def test_a_second_definition_is_found(self) -> None:
        texts = {"a.py": "class Offer: pass", "b.py": "def f():\n    class Offer: pass", "c.py": "class _Offer: pass"}

        assert doubled(texts) == {"Offer": ["a.py", "b.py"]}

    def test_two_in_one_file_are_found(self) -> None:
        assert doubled({"a.py": "if X:\n    class Y: pass\nelse:\n    class Y: pass"}) == {"Y": ["a.py", "a.py"]}
