"""How a host is reached is asked of `hosts` and known in `transports`; nobody else compares ways by name."""

import ast

import pytest

from tests.house import tree

AT_HOME = ("src/comptoir/hosts/", "src/comptoir/transports/")
NAMES = {"LINK", "POLL", "PUSH"}
EXCEPTIONS: set[str] = set()
"""Files that still compare; it may only shrink."""


def compared(code: str) -> list[int]:
    """Return the lines that compare a transport with one by name."""
    lines = []
    for node in tree.nodes(code):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        elif isinstance(node, ast.Match):
            sides = [node.subject]
        else:
            continue
        if any(_is_way(each) for each in sides):
            lines.append(node.lineno if isinstance(node, ast.expr | ast.stmt) else sides[0].lineno)
    return lines


def _is_way(side: ast.expr) -> bool:
    """Tell a way by its name, and whatever is called a host's transport."""
    if isinstance(side, ast.Tuple | ast.Set | ast.List):
        return any(_is_way(each) for each in side.elts)
    name = side.attr if isinstance(side, ast.Attribute) else side.id if isinstance(side, ast.Name) else ""
    return name in NAMES or name == "transport"


class TestNobodyCompares:
    def test_a_transport_by_name(self) -> None:
        found = set()
        for path in tree.python_files():
            if path.startswith("src/comptoir/") and not path.startswith(
                (*AT_HOME, "src/comptoir/cli/", "src/comptoir/kit/")
            ):
                text = tree.text_of(path)
                if text is not None and compared(text):
                    found.add(path)

        assert found == EXCEPTIONS, "ask Host.reach what you want to know, or do it in transports"

    @pytest.mark.parametrize(
        "code",
        [
            "if host.row.transport != LINK: pass",
            "if way == hosts.PUSH: pass",
            "if way in (POLL, PUSH): pass",
            "x = 'poll' == row.transport",
            "match host.row.transport:\n    case 'poll': pass",
            "match way:\n    case hosts.POLL: pass",
        ],
    )
    def test_a_planted_comparison_is_found(self, code: str) -> None:
        assert compared(code)

    @pytest.mark.parametrize(
        "code",
        ["if host.reach.keeps_frames: pass", "NewHost(transport=POLL)", "way = PUSH if url is not None else POLL"],
    )
    def test_what_asks_or_chooses_passes(self, code: str) -> None:
        assert not compared(code)
