"""Exports: a room's door offers what somebody outside takes. What nobody takes is the room's own, and can change with
it."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from tests.house import tree

SOURCE = "src/"

EVERY_ROOM = frozenset({"TABLES"})
"""What each room with tables offers, so that migrations and tests find them in one place."""


def offered(path: str, text: str) -> tuple[str, list[str]]:
    """Return the package that *path* is the door of, and what its ``__all__`` names."""
    package = ".".join(PurePosixPath(path).parent.parts[1:])
    names = [
        ast.literal_eval(node.value)
        for node in tree.parsed(text).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    return package, list(names[0]) if names else []


def taken(text: str) -> Iterable[tuple[str, str]]:
    """Give each name that *text* takes of a package: by an import, or as an attribute of what looks like one."""
    for node in tree.nodes(text):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield node.module, alias.name
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"*.{node.value.id}", node.attr


def idle(texts: Mapping[str, str]) -> list[str]:
    """Return what is offered and taken by nobody outside the package that offers it."""
    doors = {path: text for path, text in texts.items() if path.startswith(SOURCE) and path.endswith("/__init__.py")}
    takes = {path: set(taken(text)) for path, text in texts.items()}
    found = []
    for door, text in doors.items():
        package, names = offered(door, text)
        folder = door.removesuffix("__init__.py")
        outside = set().union(*(names for path, names in takes.items() if not path.startswith(folder)))
        short = f"*.{package.rpartition('.')[2]}"
        found += [
            f"{package}: {name}"
            for name in names
            if name not in EVERY_ROOM and not {(package, name), (short, name)} & outside
        ]
    return found


class TestExports:
    def test_what_is_offered_is_taken(self) -> None:
        texts = {path: (tree.ROOT / path).read_text() for path in tree.python_files()}

        assert idle(texts) == []

    def test_one_that_nobody_takes_is_found(self) -> None:
        texts = {
            "src/comptoir/room/__init__.py": "from comptoir.room.a import A, B, C\n__all__ = ['A', 'B', 'C', 'TABLES']",
            "src/comptoir/room/user.py": "from comptoir.room import B",
            "src/comptoir/other.py": "from comptoir.room import A\nfrom comptoir import room\nroom.C",
        }

        assert idle(texts) == ["comptoir.room: B"]
