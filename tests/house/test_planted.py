"""Planted bugs keep up with the code: each finds the one place that it changes, though only `make proofs` plants it."""

import pytest

from tests.house import tree
from tests.proofs.mutations import MUTATIONS
from tests.proofs.planting import Bug
from tests.proofs.test_planted_bugs import BUGS


class TestTable:
    @pytest.mark.parametrize("bug", [*BUGS.values(), *MUTATIONS.values()], ids=[*BUGS, *MUTATIONS])
    def test_what_is_changed_is_there_once(self, bug: Bug) -> None:
        """Where it has moved, look whether the change still breaks what it is meant to break."""
        assert (tree.ROOT / "src" / "comptoir" / bug.path).read_text(encoding="utf-8").count(bug.old) == 1

    @pytest.mark.parametrize("bug", MUTATIONS.values(), ids=list(MUTATIONS))
    def test_those_that_find_it_are_there(self, bug: Bug) -> None:
        assert all((tree.ROOT / test.partition("::")[0]).is_file() for test in bug.tests)
