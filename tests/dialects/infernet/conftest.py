"""A node with three containers, at the root and alone under its prefix."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.dialects.infernet.shop import Node, open_node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """Give a node with containers ``a``, ``b`` and ``c``, that append their names to what is said."""
    async with open_node(tmp_path) as opened:
        yield opened
