"""The demo engine, running: one for all tests of a module, as loading the model takes longer than most answers."""

from collections.abc import AsyncIterator

import pytest_asyncio

from comptoir.worker.engines.demo import DemoEngine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[DemoEngine]:
    engine = DemoEngine()
    await engine.start()
    yield engine
    await engine.close()
