"""The house rules that a machine can check: one pass over a file's syntax tree, one finding per broken rule.

Each rule is a small function from a `Source` to findings, listed in `RULES`; `test_tidy.py` runs them over the
tree and proves each on a planted violation. The reasons are in CONTRIBUTING.md, under the same names.
"""

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.house import tree

FUNCTION_LINES_MAX = 80
POSITIONAL_MAX = 4
FILE_LINES_MAX = 600

FILE_NAME_BANNED = re.compile(
    r"(^|_)(utils?|helpers?|common|misc|managers?|stuff|enhanced|advanced|improved|new|old|v\d+)$"
)
FLOAT_MONEY_SUFFIX = re.compile(r"_uusd(_per_\w+)?$")
LOGGING_CALLS = {"exception", "error", "warning", "critical", "info", "debug", "log"}


@dataclass(frozen=True)
class Finding:
    """One broken rule at one place."""

    rule: str
    path: str
    line: int
    words: str
    size: int = 0
    """Lines, for the rules about length; 0 for the others."""
    name: str = ""
    """Function the finding is about; empty for a whole file."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.words}"


class Source:
    """A Python file, read and parsed once."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.lines = text.splitlines()
        self.tree = tree.parsed(text)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Every node of the tree."""
        return tree.nodes(self.text)

    @cached_property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Every function and method, nested ones too."""
        return [node for node in self.nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]

    @cached_property
    def comments(self) -> dict[int, str]:
        """The words of each line's comment; markers for tools (noqa, type: ignore) are no words."""
        found = {}
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type == tokenize.COMMENT:
                words = re.sub(r"(noqa|type: ?ignore|pragma)[^#]*", "", token.string).strip("# ")
                if words:
                    found[token.start[0]] = words
        return found

    def finding(self, rule: str, line: int, words: str, *, size: int = 0, name: str = "") -> Finding:
        """Say that *rule* is broken in this file."""
        return Finding(rule, self.path, line, words, size, name)


def function_length(source: Source) -> Iterator[Finding]:
    """A function fits a screen; a migration is a list of statements, written once and never edited."""
    if "/migrations/versions/" in source.path:
        return
    for node in source.functions:
        size = (node.end_lineno or node.lineno) - node.lineno + 1
        if size > FUNCTION_LINES_MAX:
            words = f"{node.name} has {size} lines, {FUNCTION_LINES_MAX} are allowed"
            yield source.finding("function-length", node.lineno, words, size=size, name=node.name)


def file_length(source: Source) -> Iterator[Finding]:
    """A file is about one thing."""
    size = len(source.lines)
    if size > FILE_LINES_MAX:
        yield source.finding("file-length", 1, f"{size} lines, {FILE_LINES_MAX} are allowed", size=size)


def positional_arguments(source: Source) -> Iterator[Finding]:
    """From the fifth argument on a call says the names."""
    for node in source.functions:
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
        if len(names) > POSITIONAL_MAX and not _is_fixture_or_test(node):
            words = f"{node.name} takes {len(names)} positional arguments, {POSITIONAL_MAX} are allowed; put * before"
            yield source.finding("positional-arguments", node.lineno, words, name=node.name)


def _is_fixture_or_test(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Pytest hands fixtures over by name, so their number is no one's burden."""
    return node.name.startswith("test_") or any("fixture" in ast.unparse(d) for d in node.decorator_list)


def file_name(source: Source) -> Iterator[Finding]:
    """A file's name says what it does, not that it does something."""
    stem = Path(source.path).stem
    if FILE_NAME_BANNED.search(stem):
        yield source.finding("file-name", 1, f"{stem} says nothing about what is inside")


def module_docstring(source: Source) -> Iterator[Finding]:
    """Every module opens with what it is for; an empty file has nothing to say."""
    if source.tree.body and not ast.get_docstring(source.tree):
        yield source.finding("module-docstring", 1, "say in a paragraph what this module is for")


def import_inside(source: Source) -> Iterator[Finding]:
    """What a module needs stands at its top, where walls and readers see it."""
    for function in source.functions:
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield source.finding("import-inside", node.lineno, f"import inside {function.name}")


def global_statement(source: Source) -> Iterator[Finding]:
    """State has an owner; a module is none."""
    for node in source.nodes:
        if isinstance(node, ast.Global):
            yield source.finding("global-statement", node.lineno, "global " + ", ".join(node.names))


def broad_except(source: Source) -> Iterator[Finding]:
    """A handler for everything says why in a comment, and logs, raises or hands the error on: none is swallowed.

    One that ends in ``raise`` catches nothing for good, so it need not explain itself.
    """
    for node in source.nodes:
        if not isinstance(node, ast.ExceptHandler) or not _is_broad(node.type):
            continue
        if isinstance(node.body[-1], ast.Raise):
            continue
        first = node.body[0].lineno
        if not any(line in source.comments for line in range(node.lineno - 1, first + 1)):
            yield source.finding("broad-except", node.lineno, "say in a comment why everything is caught here")
        if not _error_goes_on(node):
            yield source.finding("broad-except", node.lineno, "the error is neither logged, raised nor handed on")


def _is_broad(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(_is_broad(one) for one in caught.elts)
    return caught is None or (isinstance(caught, ast.Name) and caught.id in ("Exception", "BaseException"))


def _error_goes_on(handler: ast.ExceptHandler) -> bool:
    for node in ast.walk(handler):
        if isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOGGING_CALLS:
            return True
        if handler.name and isinstance(node, ast.Name) and node.id == handler.name:
            return True
    return False


def float_money(source: Source) -> Iterator[Finding]:
    """Money is whole micro-dollars: no name that ends in _uusd is ever a float."""
    for node in source.nodes:
        for name, line, annotation, value in _typed_names(node):
            if not FLOAT_MONEY_SUFFIX.search(name):
                continue
            floating = any(isinstance(n, ast.Name) and n.id == "float" for n in _walk(annotation))
            divided = isinstance(value, ast.BinOp) and isinstance(value.op, ast.Div)
            fraction = isinstance(value, ast.Constant) and isinstance(value.value, float)
            if floating or divided or fraction:
                yield source.finding("float-money", line, f"{name} is micro-dollars, an int")


def _typed_names(node: ast.AST) -> Iterator[tuple[str, int, ast.expr | None, ast.expr | None]]:
    """Give (name, line, annotation, value) of whatever *node* names."""
    if isinstance(node, ast.arg):
        yield node.arg, node.lineno, node.annotation, None
    elif isinstance(node, ast.keyword) and node.arg:
        yield node.arg, node.value.lineno, None, node.value
    elif isinstance(node, ast.AnnAssign):
        yield _last_name(node.target), node.lineno, node.annotation, node.value
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield _last_name(target), node.lineno, None, node.value
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name, node.lineno, node.returns, None


def _last_name(target: ast.expr) -> str:
    if isinstance(target, ast.Attribute):
        return target.attr
    return target.id if isinstance(target, ast.Name) else ""


def _walk(node: ast.expr | None) -> Iterator[ast.AST]:
    if node is not None:
        yield from ast.walk(node)


def settable_callback(source: Source) -> Iterator[Finding]:
    """No behaviour is hung on from outside: what happens is told as an event, what is needed comes in by the
    constructor."""
    if not source.path.startswith("src/"):
        return
    functions = {node.name for node in source.functions}
    for cls in [node for node in source.nodes if isinstance(node, ast.ClassDef)]:
        # A frozen class takes its behaviour when it is made, a default included; so does a constructor's parameter.
        for node in [] if _is_frozen(cls) else cls.body:
            yield from _declared(source, node, given=set())
        for method in [node for node in cls.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]:
            given = {arg.arg for arg in (*method.args.args, *method.args.kwonlyargs)}
            for node in ast.walk(method):
                yield from _declared(source, node, given=given)
    for node in source.nodes:
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            if not isinstance(target, ast.Attribute) or _is_self(target.value):
                continue
            if target.attr.startswith("on_") or _is_behaviour(node.value, functions):
                words = f"{ast.unparse(target)} is assigned from outside"
                yield source.finding("settable-callback", node.lineno, words, name=target.attr)


def _declared(source: Source, node: ast.AST, *, given: set[str]) -> Iterator[Finding]:
    """Find what *node* declares as an attribute that anybody may set: a public one, callable, with a stand-in as
    value."""
    if not isinstance(node, ast.AnnAssign | ast.Assign) or node.value is None:
        return
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
    inside = isinstance(target, ast.Attribute) and _is_self(target.value)
    name = _last_name(target)
    if name.startswith("_") or (given and not inside) or (isinstance(node.value, ast.Name) and node.value.id in given):
        return
    typed = isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).startswith("Callable[")
    if typed or isinstance(node.value, ast.Lambda):
        yield source.finding("settable-callback", node.lineno, f"anybody may set {name}", name=name)


def _is_self(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def _is_frozen(cls: ast.ClassDef) -> bool:
    calls = [one for one in cls.decorator_list if isinstance(one, ast.Call)]
    keywords = [*cls.keywords, *(keyword for call in calls for keyword in call.keywords)]
    return any(keyword.arg == "frozen" for keyword in keywords)


def _is_behaviour(value: ast.expr, functions: set[str]) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] == "partial"
    if isinstance(value, ast.Name | ast.Attribute):
        name = value.id if isinstance(value, ast.Name) else value.attr
        return name in functions
    return isinstance(value, ast.Lambda)


RULES: tuple[Callable[[Source], Iterator[Finding]], ...] = (
    function_length,
    file_length,
    positional_arguments,
    file_name,
    module_docstring,
    import_inside,
    global_statement,
    broad_except,
    float_money,
    settable_callback,
)


def findings(path: str, text: str) -> list[Finding]:
    """Check one file's *text* against every rule; *path* is what the findings say."""
    source = Source(path, text)
    return [finding for rule in RULES for finding in rule(source)]
