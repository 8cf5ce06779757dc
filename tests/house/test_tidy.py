"""Tidy: every Python file keeps the house rules, and every rule catches what it is there for."""

from textwrap import indent

import pytest

from tests.house import tidy, tree

EXCEPTIONS: dict[tuple[str, str, str], int] = {}
"""What may be longer than the rules say: (rule, path, function or "") to its exact size in lines.

A ratchet: the size may only go down, and an entry goes when its reason is gone. Nothing is added.
"""


def judge(found: list[tidy.Finding], exceptions: dict[tuple[str, str, str], int]) -> list[str]:
    """Return what is wrong: findings without an exception, exceptions that no longer fit."""
    wrong = []
    left = dict(exceptions)
    for finding in found:
        allowed = left.pop((finding.rule, finding.path, finding.name), None) if finding.size else None
        if allowed is None:
            wrong.append(str(finding))
        elif finding.size > allowed:
            wrong.append(f"{finding} (it had {allowed}: an exception only shrinks)")
        elif finding.size < allowed:
            wrong.append(f"{finding} (well done: now write {finding.size} into EXCEPTIONS)")
    return wrong + [f"{path}: {rule} {name}: no exception needed any more" for rule, path, name in left]


class TestTree:
    def test_every_file_is_tidy(self) -> None:
        found = [f for path in tree.python_files() for f in tidy.findings(path, (tree.ROOT / path).read_text())]

        assert judge(found, EXCEPTIONS) == []

    def test_there_are_files_to_look_at(self) -> None:
        assert "src/comptoir/kit/money.py" in tree.python_files()


def lines(count: int) -> str:
    return "\n".join(f"    a{n} = {n}" for n in range(count))


PLANTED = [
    # rule, file name, code that breaks it
    ("function-length", "a.py", f"def f():\n{lines(80)}\n"),
    ("function-length", "a.py", f"class A:\n    async def f(self):\n{indent(lines(80), '    ')}\n"),
    ("file-length", "a.py", "a = 1\n" * 601),
    ("positional-arguments", "a.py", "def f(a, b, c, d, e):\n    pass\n"),
    ("positional-arguments", "a.py", "class A:\n    def f(self, a, b, c, d, /, e):\n        pass\n"),
    ("file-name", "utils.py", ""),
    ("file-name", "job_helpers.py", ""),
    ("file-name", "common.py", ""),
    ("file-name", "session_manager.py", ""),
    ("file-name", "router_v2.py", ""),
    ("module-docstring", "a.py", "a = 1\n"),
    ("import-inside", "a.py", "def f():\n    import os\n"),
    ("import-inside", "a.py", "def f():\n    if True:\n        from os import path\n"),
    ("global-statement", "a.py", "def f():\n    global a\n    a = 1\n"),
    ("broad-except", "a.py", "try:\n    f()\nexcept Exception:\n    log.exception('no')\n"),
    ("broad-except", "a.py", "try:\n    f()\nexcept Exception:  # noqa: BLE001\n    log.exception('no')\n"),
    ("broad-except", "a.py", "try:\n    f()\nexcept Exception:  # A reason.\n    a = None\n"),
    ("broad-except", "a.py", "try:\n    f()\nexcept (OSError, Exception):  # A reason.\n    pass\n"),
    ("broad-except", "a.py", "try:\n    f()\nexcept:  # A reason.\n    pass\n"),
    ("float-money", "a.py", "cost_uusd: float = f()\n"),
    ("float-money", "a.py", "def f(cost_uusd: float | None):\n    pass\n"),
    ("float-money", "a.py", "def cost_uusd() -> float:\n    pass\n"),
    ("float-money", "a.py", "price_uusd_per_mtok = 0.5\n"),
    ("float-money", "a.py", "a.cost_uusd = b / 2\n"),
    ("float-money", "a.py", "pay(cost_uusd=1.5)\n"),
    ("settable-callback", "src/a.py", "class A:\n    def __init__(self):\n        self.told = lambda host: None\n"),
    (
        "settable-callback",
        "src/a.py",
        "class A:\n    def __init__(self):\n        self.tell: Callable[[int], None] = nobody\n",
    ),
    ("settable-callback", "src/a.py", "class A:\n    tell: Callable[[int], None] = nobody\n"),
    (
        "settable-callback",
        "src/a.py",
        "@dataclass(eq=False)\nclass A:\n    tell: Callable[[int], None] = lambda host: None\n",
    ),
    ("settable-callback", "src/a.py", "core.fleet.tell = lambda host: pump(host)\n"),
    ("settable-callback", "src/a.py", "core.tell = partial(pump, core)\n"),
    ("settable-callback", "src/a.py", "def f(server, on_stop):\n    server.on_stop = on_stop\n"),
    ("settable-callback", "src/a.py", "def f(core):\n    def reach(host):\n        pass\n    core.reach = reach\n"),
    (
        "settable-callback",
        "src/a.py",
        "class A:\n    def f(self, a):\n        a.reach = self.reach\n    def reach(self): ...\n",
    ),
]

ALLOWED = [
    # what it is, code that breaks nothing
    ("a function of eighty lines", f'"""A."""\ndef f():\n{lines(79)}\n'),
    ("names after the star", '"""A."""\ndef f(a, b, c, d, *, e, g):\n    pass\n'),
    ("a test with many fixtures", '"""A."""\ndef test_f(a, b, c, d, e):\n    pass\n'),
    ("an empty file", ""),
    ("a broad except that logs", '"""A."""\ntry:\n    f()\nexcept Exception:  # A reason.\n    log.exception("no")\n'),
    ("a broad except that raises", '"""A."""\ntry:\n    f()\nexcept BaseException:\n    a = None\n    raise\n'),
    ("a broad except that hands on", '"""A."""\ntry:\n    f()\nexcept Exception as e:  # Why.\n    future.fail(e)\n'),
    ("a narrow except", '"""A."""\ntry:\n    f()\nexcept OSError:\n    pass\n'),
    (
        "a constructor's argument",
        '"""A."""\nclass A:\n    def __init__(self, tell: Callable[[], None]):\n        self.tell: Callable[[], None] = tell\n',
    ),
    ("a frozen default", '"""A."""\nclass A(Struct, frozen=True):\n    tell: Callable[[], None] = nobody\n'),
    ("its own behaviour", '"""A."""\nclass A:\n    def f(self):\n        self._now = lambda: 1\n'),
    ("whole money", '"""A."""\ncost_uusd: int = a // 2\nratio: float = 0.5\n'),
]


class TestRules:
    @pytest.mark.parametrize(("rule", "name", "code"), PLANTED)
    def test_a_planted_violation_is_found(self, rule: str, name: str, code: str) -> None:
        assert rule in {finding.rule for finding in tidy.findings(name, code)}

    @pytest.mark.parametrize(("what", "code"), ALLOWED)
    def test_good_code_passes(self, what: str, code: str) -> None:
        assert tidy.findings("src/a.py", code) == [], what

    def test_every_rule_is_proved(self) -> None:
        """A rule that nothing breaks may be no rule at all."""
        names = {rule.__name__.replace("_", "-") for rule in tidy.RULES}

        assert names == {rule for rule, _, _ in PLANTED}


class TestRatchet:
    long = tidy.Finding("file-length", "a.py", 1, "600 lines", size=600)

    @pytest.mark.parametrize(
        ("allowed", "verdict"),
        [(600, None), (590, "only shrinks"), (610, "well done")],
    )
    def test_an_exception_fits_exactly(self, allowed: int, verdict: str | None) -> None:
        wrong = judge([self.long], {("file-length", "a.py", ""): allowed})

        assert wrong == [] if verdict is None else verdict in wrong[0]

    def test_an_exception_without_need_goes(self) -> None:
        assert judge([], {("file-length", "a.py", ""): 600}) == ["a.py: file-length : no exception needed any more"]

    def test_only_lengths_have_exceptions(self) -> None:
        """Nothing excuses a swallowed error."""
        swallowed = tidy.Finding("broad-except", "a.py", 3, "swallowed")

        assert judge([swallowed], {("broad-except", "a.py", ""): 0}) != []
