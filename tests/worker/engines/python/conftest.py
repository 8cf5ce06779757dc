"""One engine for the programs of a module, and wheels that it may be asked for."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from comptoir.worker.engines.python import PythonEngine
from tests.worker.engines.python.trying import Tried, attempt, opened

Run = Callable[..., Awaitable[Tried]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a worker."""
    return tmp_path_factory.mktemp("worker")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(folder: Path) -> AsyncIterator[PythonEngine]:
    """Give one engine for many programs."""
    async with opened(folder) as made:
        yield made


@pytest.fixture
def run(engine: PythonEngine, folder: Path) -> Run:
    """Give what runs an order, given as keywords, to its end."""

    async def tried(*inputs: bytes, **order: Any) -> Tried:
        return await attempt(engine, folder, order, *inputs)

    return tried
