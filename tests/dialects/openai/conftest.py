"""One shop per test module: opening a trading post takes a third of a second."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.dialects.openai.shop import Shop, open_shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    """Give an open shop; every test says first how its upstream answers."""
    async with open_shop(tmp_path_factory.mktemp("shop"), cors_origins=("https://app.example",)) as opened:
        yield opened
