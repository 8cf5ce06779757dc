"""A street on SQLite: what a database must do is asked of both in the rooms, the machines and the journeys."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.street import Street, open_street


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    """Give a house with one buyer and no host."""
    async with open_street(tmp_path) as opened:
        yield opened
