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


@pytest.fixture
async def either_street(tmp_path: Path, database_address: str) -> AsyncIterator[Street]:
    """Give the same on each database, for what they might take differently."""
    async with open_street(tmp_path, database=database_address) as opened:
        yield opened
