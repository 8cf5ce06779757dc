"""The demo engine, running."""

from collections.abc import AsyncIterator

import pytest

from comptoir.worker.engines.demo import DemoEngine


@pytest.fixture
async def engine() -> AsyncIterator[DemoEngine]:
    engine = DemoEngine()
    await engine.start()
    yield engine
    await engine.close()
