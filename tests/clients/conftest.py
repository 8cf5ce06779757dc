"""One trading post with the hostile engine for each file, and the processes of the clients that it asks for."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from tests.clients.driven import Client, Driver, variables
from tests.dialects.openai.shop import Shop, open_shop

MODEL = "comptoir-demo"
"""The model that docs/clients.md names."""

PING_S = 0.05
"""Shorter than the hostile engine is slow."""


def marked(client: Client) -> list[pytest.MarkDecorator]:
    """Return the marks of a test of *client*."""
    return [] if client.often else [pytest.mark.clients]


DriverOf = Callable[[str], Awaitable[Driver]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    models = {"object": "list", "data": [{"id": MODEL, "object": "model", "max_model_len": 1_000_000}]}
    async with open_shop(tmp_path_factory.mktemp("shop"), models=models, sse_ping_s=PING_S) as opened:
        yield opened


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
