"""One trading post with the hostile engine for each file, and the processes of the clients that it asks for."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.clients.driven import Client, Driver, variables
from tests.dialects.openai.shop import Shop, open_shop

MODEL = "comptoir-demo"
"""The model that docs/clients.md names."""


def marked(client: Client) -> list[pytest.MarkDecorator]:
    """Return the marks of a test of *client*."""
    return [] if client.often else [pytest.mark.clients]


DriverOf = Callable[[str], Awaitable[Driver]]


@contextlib.asynccontextmanager
async def opened(folder: Path, **settings: Any) -> AsyncIterator[Shop]:
    """Open a trading post that offers the model."""
    models = {"object": "list", "data": [{"id": MODEL, "object": "model", "max_model_len": 1_000_000}]}
    async with open_shop(folder, models=models, **settings) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with opened(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest.fixture(scope="module")
def surroundings(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Give the environment variables of clients."""
    return variables(shop.url, shop.post.buyer_key, tmp_path_factory.mktemp("home"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def driver_of(surroundings: dict[str, str]) -> AsyncIterator[DriverOf]:
    """Give the driver of an environment, started when it is first asked for."""
    started: dict[str, Driver] = {}

    async def of(environment: str) -> Driver:
        if environment not in started:
            started[environment] = await Driver.started(environment, surroundings)
        return started[environment]

    yield of
    for driver in started.values():
        await driver.close()
