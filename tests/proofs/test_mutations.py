"""Each mutation of `tests.proofs.mutations` is caught."""

from pathlib import Path

import pytest

from tests.proofs.mutations import MUTATIONS
from tests.proofs.planting import caught_by


@pytest.mark.proof
class TestMutations:
    @pytest.mark.parametrize("name", MUTATIONS)
    async def test_it_is_caught(self, name: str, tmp_path: Path) -> None:
        assert await caught_by(MUTATIONS[name], tmp_path)
