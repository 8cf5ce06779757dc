"""What is sold is asked of its kind: outside `comptoir.kinds` nothing asks which kind something is, by name, constant
or class.

So a new kind is a folder and a line (docs/adding/a-kind.md). `LEFT` names the files that are about one kind by their
subject, each with its reason, and only shrinks.
"""

import ast
from collections.abc import Iterator, Mapping

import pytest

from comptoir.kinds import BUILT_IN
from tests.house import tree

AT_HOME = ("src/comptoir/kinds/", "src/comptoir/link/", "src/comptoir/worker/engines/", "src/comptoir/cli/work/")
"""The kinds themselves, the wire, whose constant and shapes are those of the older workers, engines, each of which is
about the kinds that it runs, and the commands that order one kind each."""
NAMES = {kind.name for kind in BUILT_IN}
CLASSES = {kind.__name__ for kind in BUILT_IN}

INFERNET = "Infernet's published answers have a field of this name"
STORED = "the column, and the field that coordinators tell each other, are called so; only the room itself reads it"

LEFT: Mapping[str, tuple[str, str]] = {
    "src/comptoir/containers/admit.py": ("'container'", INFERNET),
    "src/comptoir/dialects/infernet/errors.py": ("'container'", INFERNET),
    "src/comptoir/dialects/infernet/routes.py": ("'container'", INFERNET),
    "src/comptoir/dialects/openai/wire.py": ("'embedding'", "the type of an object in OpenAI's published answers"),
    "src/comptoir/jobs/live.py": (".steps", STORED),
    "src/comptoir/jobs/store.py": (".steps", STORED),
    "src/comptoir/jobs/types.py": (".steps", STORED),
    "src/comptoir/receipts/first_version.py": (
        "'container'",
        "receipts of version 1 are read as they were written, for ever",
    ),
}
"""File, what it says, and why. Nothing is added."""


def asked(text: str) -> Iterator[str]:
    """Yield whatever of *text* names a kind, or asks for one; strings that stand alone are docstrings."""
    docstrings = {id(node.value) for node in tree.nodes(text) if isinstance(node, ast.Expr)}
    for node in tree.nodes(text):
        if isinstance(node, ast.Constant) and node.value in NAMES and id(node) not in docstrings:
            yield repr(node.value)
        elif isinstance(node, ast.Attribute) and node.attr == "steps":
            yield ".steps"
        elif "CONTAINER" in (getattr(node, "attr", ""), getattr(node, "id", ""), getattr(node, "name", "")):
            yield "CONTAINER"
        elif isinstance(node, ast.Compare) and any(map(_is_kind, [node.left, *node.comparators])):
            yield ast.unparse(node)
        elif isinstance(node, ast.Match) and _is_kind(node.subject):
            yield f"match {ast.unparse(node.subject)}"
        elif isinstance(node, ast.MatchClass) and _is_kind(node.cls):
            yield f"case {ast.unparse(node.cls)}"
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("isinstance", "issubclass", "type")
            and _is_kind(node)
        ):
            yield ast.unparse(node)


def _is_kind(side: ast.expr) -> bool:
    """Tell a kind's class, its name, and the name of whatever kind something has."""
    if isinstance(side, ast.Tuple | ast.Set | ast.List):
        return any(map(_is_kind, side.elts))
    if isinstance(side, ast.Call):
        return any(map(_is_kind, side.args))
    if isinstance(side, ast.Attribute) and side.attr == "name":
        return _is_kind(side.value) or ast.unparse(side.value).rpartition(".")[2] == "kind"
    return ast.unparse(side).rpartition(".")[2] in CLASSES


def judge(found: Mapping[str, set[str]], left: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return what is wrong: what is said and is not on the list, what is on the list and no longer said."""
    allowed = {(path, words) for path, (said, _) in left.items() for words in said.split()}
    said = {(path, words) for path, every in found.items() for words in every}
    return [f"{path} says {words}: ask the kind" for path, words in sorted(said - allowed)] + [
        f"{path}: {words} is gone, so its entry goes" for path, words in sorted(allowed - said)
    ]


class TestKinds:
    def test_nobody_asks_which_kind_it_is(self) -> None:
        ours = [
            path
            for path in tree.python_files()
            if path.startswith("src/comptoir/") and not path.endswith("/testing.py")
        ]
        paths = [path for path in ours if not path.startswith(AT_HOME)]
        assert len(paths) > 100

        found = {path: set(asked((tree.ROOT / path).read_text())) for path in paths}

        assert judge(found, LEFT) == []

    @pytest.mark.parametrize(
        "code",
        [
            'if job.kind == "container": pass',
            'if order.kind in ("chat", "completion"): pass',
            'if kind != "embedding": pass',
            'match job.kind:\n    case "chat": pass',
            "match job.kind.name:\n    case name: pass",
            "if job.kind.name == name: pass",
            "if Chat.name in offer.kinds: pass",
            "if request.kind == kinds.Embedding.name: pass",
            "if isinstance(job.kind, ContainerChain): pass",
            "if type(job.kind) is Chat: pass",
            "match job.kind:\n    case ContainerChain(): pass",
            "for step in job.steps: pass",
            "from comptoir.link import CONTAINER",
            "if offer.kinds == [link.CONTAINER]: pass",
            'PATHS = {"chat": "/chat/completions"}',
        ],
    )
    def test_a_planted_question_is_found(self, code: str) -> None:
        assert judge({"a.py": set(asked(code))}, {}) != []

    @pytest.mark.parametrize(
        "code",
        [
            '"""chat"""\nclass A:\n    x = 1\n    """container"""',
            "order = Order(kind=Chat.name)",
            "if job.kind.staged: pass",
            'if transfer.kind == "pay": pass',
            "if offer.container is not None: pass",
        ],
    )
    def test_a_docstring_an_order_and_a_kinds_answer_are_none(self, code: str) -> None:
        assert judge({"a.py": set(asked(code))}, {}) == []

    def test_an_entry_without_need_goes(self) -> None:
        assert judge({}, {"a.py": ("'chat'", "a reason")}) == ["a.py: 'chat' is gone, so its entry goes"]
