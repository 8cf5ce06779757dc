"""Owners: a job and its leases are written in their own room alone, so that every transition of theirs stands in one
place."""

import ast
from collections.abc import Iterator

import pytest

from comptoir.jobs import Lease, LiveJob
from tests.house import tree

ROOM = "src/comptoir/jobs/"

BLIND = tuple(f"src/comptoir/{package}/" for package in ("kit", "link", "worker", "migrations"))
"""Packages that can't hold a job: `.importlinter` keeps them from the room, and nobody hands them one."""

OWNED = frozenset(LiveJob.__slots__) | frozenset(Lease.__struct_fields__)
"""Attributes of a job or a lease."""

TABLES = frozenset({"leaving", "mirrors", "broken"})
"""Those tables of `LiveJobs` that others look at; of these it is the contents that are owned."""

MUTATORS = frozenset(
    ("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "reverse", "setdefault",
     "sort", "update")
)  # fmt: skip

EXCEPTIONS: set[tuple[str, str]] = set()
"""Written outside the room all the same, as (path, what is written). Empty, and nothing is added."""

OTHERS = {
    ("src/comptoir/app.py", "self._app.closing"),
    ("src/comptoir/chain/types.py", "object.__setattr__"),
    ("src/comptoir/dispatch/settle.py", "facts.segments[-1]"),
    ("src/comptoir/hosts/host.py", "candidate.rate_in"),
    ("src/comptoir/hosts/host.py", "candidate.rate_out"),
}
"""The same names on something that is neither a job nor a lease."""


def writes(text: str) -> Iterator[str]:
    """Give what *text* writes that looks like a job's or a lease's: the target, as it stands there."""
    for node in tree.nodes(text):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load) and _is_owned(node, OWNED):
            yield ast.unparse(node)
        elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            if _is_owned(node.value, OWNED | TABLES):
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            if _is_owned(node.func.value, OWNED | TABLES):
                yield ast.unparse(node.func)
        elif isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node).endswith(
            ("setattr", "delattr", "__setattr__")
        ):
            yield ast.unparse(node)
        elif isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & {
            "LiveJob",
            "LiveJobs",
            "Lease",
        }:
            yield f"class {node.name}"


def _is_owned(node: ast.expr, names: frozenset[str]) -> bool:
    own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    return isinstance(node, ast.Attribute) and node.attr in names and not own


def found() -> set[tuple[str, str]]:
    """Return every such write outside the room."""
    paths = [path for path in tree.python_files() if path.startswith("src/comptoir/")]
    outside = [path for path in paths if not path.startswith((ROOM, *BLIND))]
    return {(path, target) for path in outside for target in writes((tree.ROOT / path).read_text())}


class TestTree:
    def test_only_its_room_writes_a_job(self) -> None:
        assert found() == EXCEPTIONS | OTHERS


PLANTED = [
    # code that breaks the rule, what is said
    ("job.state = 1", "job.state"),
    ("job.events += 1", "job.events"),
    ("job.refused: bool = True", "job.refused"),
    ("del job.lease", "job.lease"),
    ("a, (job.lease.touched_s, *job.frames) = b", "job.lease.touched_s"),
    ("for job.state in states: pass", "job.state"),
    ("with a as job.hedge: pass", "job.hedge"),
    ("core.jobs.live.get(job_id).closing = False", "core.jobs.live.get(job_id).closing"),
    ("self._job.owner_node = b''", "self._job.owner_node"),
    ("lease.frames_at_worker = 5", "lease.frames_at_worker"),
    ("job.segments[-1] = segment", "job.segments[-1]"),
    ("del job.frames[3:]", "job.frames[3:]"),
    ("job.tried.add(host_id)", "job.tried.add"),
    ("job.unable.update(hosts)", "job.unable.update"),
    ("core.jobs.live.leaving.append(lease)", "core.jobs.live.leaving.append"),
    ("core.jobs.live.mirrors.pop(job_id)", "core.jobs.live.mirrors.pop"),
    ("live.broken[job] = None", "live.broken[job]"),
    ("setattr(job, 'state', 1)", "setattr"),
    ("object.__setattr__(job, 'state', 1)", "object.__setattr__"),
    ("class Mine(LiveJob): pass", "class Mine"),
]


class TestPlanted:
    @pytest.mark.parametrize(("code", "said"), PLANTED)
    def test_it_is_found(self, code: str, said: str) -> None:
        assert said in set(writes(code))

    @pytest.mark.parametrize(
        "code",
        [
            "state = job.state",
            "self.state = 1",
            "job.begin_closing()",
            "lease.touch(now)",
            "job.frames[3]",
            "live.all()",
        ],
    )
    def test_reading_and_asking_are_free(self, code: str) -> None:
        assert list(writes(code)) == []
