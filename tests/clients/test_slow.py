"""A first token that is long in coming: a client reads nothing out of the pings that fill the silence.

On a trading post of its own, whose pings begin so soon that an engine's refusal could come after them.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.clients.conftest import MODEL, DriverOf, opened
from tests.clients.driven import CLIENTS, Client
from tests.clients.hostile import COST_UUSD, SLOW_S, installed, question
from tests.clients.test_libraries import asked
from tests.dialects.openai.shop import Shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

PING_S = SLOW_S / 5

STREAMING = [
    pytest.param(client, id=client.name, marks=[] if client.environment == "node" else [pytest.mark.clients])
    for client in CLIENTS
    if "stream" in client.forms
]
"""`make test` has Node's alone, whose process starts in no time."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with opened(tmp_path_factory.mktemp("shop"), sse_ping_s=PING_S) as shop:
        yield shop


@pytest.mark.parametrize("client", STREAMING)
async def test_pings_are_no_text(shop: Shop, driver_of: DriverOf, client: Client) -> None:
    result, engine, cost = await asked(shop, driver_of, client, form="stream", name="slow first token")

    assert (result, engine.tries.total(), cost) == ("ab", 1, COST_UUSD)


async def test_there_are_pings(shop: Shop) -> None:
    """Else the above would show nothing."""
    installed(shop)

    response = await shop.ask(shop.chat(question("slow first token"), model=MODEL, stream=True))

    assert response.body.startswith(b": ping\n\n")
