"""The files of this repository as the house tests see them: what git tracks and what it would take."""

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def files() -> tuple[str, ...]:
    """Return every path git tracks, and every new one it does not ignore: a mistake is best found uncommitted."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return tuple(sorted({path for path in listed.split("\0") if path and (ROOT / path).is_file()}))


def python_files() -> list[str]:
    """Return the paths of all Python files."""
    return [path for path in files() if path.endswith(".py")]


def text_of(path: str) -> str | None:
    """Return a file's text, or ``None`` when it is not text (a model, a picture)."""
    raw = (ROOT / path).read_bytes()
    if b"\0" in raw[:8192]:
        return None
    return raw.decode("utf-8", errors="replace")


@cache
def parsed(text: str) -> ast.Module:
    """Return the syntax tree of *text*, parsed once for all rules; nobody changes it."""
    return ast.parse(text)


@cache
def nodes(text: str) -> tuple[ast.AST, ...]:
    """Return every node of the syntax tree of *text*, found once for all rules."""
    return tuple(ast.walk(parsed(text)))
