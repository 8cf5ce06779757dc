"""The core is small and nobody changes it: `Core` is frozen, has few members, and a verb's state lives with that
verb."""

import ast
import dataclasses
from collections.abc import Iterator

import pytest

from comptoir.dispatch import Core
from tests.house import tree

MEMBERS_MAX = 20
"""Public fields, properties and methods of House. It had 56, and 233 functions take it: each sees all of them."""

CORES = ("core", "_core")
"""Names under which the core is known, alone or behind a dot."""


def public_members(core: type) -> set[str]:
    """Return what a reader of *core* has to know."""
    fields = {field.name for field in dataclasses.fields(core)}
    return {name for name in fields | set(dir(core)) if not name.startswith("_")}


def is_house(node: ast.AST) -> bool:
    """Tell whether *node* reads the core: ``core``, ``self._core``, ``post.core``, ``posts[1].core``."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name in CORES


def changed(text: str) -> Iterator[str]:
    """Yield the members of the core that *text* assigns to or deletes, in whatever way."""
    for node in tree.nodes(text):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load) and is_house(node.value):
            yield node.attr
        if isinstance(node, ast.Call) and node.args and is_house(node.args[0]):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("setattr", "__setattr__", "delattr", "__delattr__"):
                yield ast.unparse(node.args[1])


class TestCore:
    def test_it_is_frozen(self) -> None:
        params = Core.__dataclass_params__  # type: ignore[attr-defined]

        assert (params.frozen, params.eq) == (True, False)

    def test_it_has_few_members(self) -> None:
        members = public_members(Core)

        assert len(members) <= MEMBERS_MAX, (
            f"{len(members)} members: state that belongs to a verb is a State of its module"
        )

    def test_a_member_too_many_is_found(self) -> None:
        @dataclasses.dataclass(frozen=True)
        class Planted(Core):
            planted: int = 0

            def plant(self) -> None: ...

        assert public_members(Planted) == public_members(Core) | {"planted", "plant"}

    def test_nobody_assigns_to_it(self) -> None:
        """Frozen already says so where mypy or the interpreter looks; tests are neither typed nor all run at once."""
        found = [f"{path}: {name}" for path in tree.python_files() for name in changed((tree.ROOT / path).read_text())]

        assert found == []

    @pytest.mark.parametrize(
        "code",
        [
            "core.lines = {}",
            "self._core.frames += 1",
            "post.core.settings: object = None",
            "posts[1].core.fleet, other = a, b",
            "del core.lines",
            "for core.lines in a: pass",
            "with a as core.lines: pass",
            "monkeypatch.setattr(post.core, 'lines', {})",
            "object.__setattr__(core, 'lines', {})",
            "setattr(self._core, name, {})",
        ],
    )
    def test_a_planted_assignment_is_found(self, code: str) -> None:
        assert list(changed(code)) != []

    @pytest.mark.parametrize(
        "code",
        [
            "core.lines[host_id] = line",
            "self._house = house",
            "a = core.lines",
            "core.state(Meters).frames += 1",
            "monkeypatch.setattr(core.db, 'batch', away)",
        ],
    )
    def test_what_is_no_assignment_to_it_is_not_found(self, code: str) -> None:
        assert list(changed(code)) == []


def declared(text: str) -> set[str]:
    """Return the names of the classes of *text* that are a `State`."""
    classes = [node for node in tree.nodes(text) if isinstance(node, ast.ClassDef)]
    return {
        each.name for each in classes if any(isinstance(base, ast.Name) and base.id == "State" for base in each.bases)
    }


def state_of(node: ast.AST, known: dict[str, str]) -> str:
    """Return the class of the State that *node* reads, ``core.state(Meters)`` or a name of *known*; empty: it reads
    none."""
    if isinstance(node, ast.Name):
        return known.get(node.id, "")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "state" and node.args:
        return ast.unparse(node.args[0])
    return ""


def foreign_writes(text: str) -> Iterator[str]:
    """Yield what *text* assigns to in a State that another module declares."""
    own = declared(text)
    known: dict[str, str] = {}
    for node in tree.nodes(text):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=False))
                known.update({ast.unparse(name): kind for name, value in pairs if (kind := state_of(value, {}))})
    for node in tree.nodes(text):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            kind = state_of(node.value, known)
            if kind and kind not in own:
                yield f"{kind}.{node.attr}"


class TestState:
    def test_only_its_own_verb_writes_it(self) -> None:
        """Others call its methods, so that what may happen to it stands in one file."""
        paths = [path for path in tree.python_files() if path.startswith("src/")]
        found = [f"{path}: {what}" for path in paths for what in foreign_writes((tree.ROOT / path).read_text())]

        assert found == []

    @pytest.mark.parametrize(
        "code",
        [
            "core.state(Meters).frames += 1",
            "meters = core.state(Meters)\nmeters.frames += 1",
            "a, meters = b, self._core.state(Meters)\nmeters.frames, c = 1, 2",
            "class Other(State): pass\nhouse.state(Meters).frames = 1",
        ],
    )
    def test_a_planted_write_is_found(self, code: str) -> None:
        assert list(foreign_writes(code)) == ["Meters.frames"]

    @pytest.mark.parametrize(
        "code",
        [
            "class Meters(State): pass\nmeters = core.state(Meters)\nmeters.frames += 1",
            "core.state(Meters).count(1)",
            "frames = core.state(Meters).frames",
            "job.state = core.state(Meters).frames",
        ],
    )
    def test_what_is_its_own_or_only_read_is_not_found(self, code: str) -> None:
        assert list(foreign_writes(code)) == []
