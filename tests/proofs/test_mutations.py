"""Each mutation of `tests.proofs.mutations` is caught."""

from pathlib import Path

import pytest

from tests.house.tree import ROOT
from tests.proofs.mutations import MUTATIONS
from tests.proofs.planting import Bug, caught_by
from tests.proofs.test_planted_bugs import BUGS


@pytest.mark.proof
class TestMutations:
    @pytest.mark.parametrize("name", MUTATIONS)
    async def test_it_is_caught(self, name: str, tmp_path: Path) -> None:
        assert await caught_by(MUTATIONS[name], tmp_path)


class TestTable:
    @pytest.mark.parametrize("bug", [*BUGS.values(), *MUTATIONS.values()])
    def test_what_is_changed_is_there(self, bug: Bug) -> None:
        """By day, so that whoever moves the code moves the mutation with it."""
        assert (ROOT / "src" / "comptoir" / bug.path).read_text(encoding="utf-8").count(bug.old) == 1
