"""A street on each database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.street import Street, open_street


@pytest.fixture
async def street(tmp_path: Path, database_address: str) -> AsyncIterator[Street]:
    """Give a house with one buyer and no host."""
    async with open_street(tmp_path, database=database_address) as opened:
        yield opened
