"""Promotional credit in every dialect: where no host takes it the refusal says so, and money of one's own buys."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from comptoir.dispatch.onboard import add_host
from comptoir.hosts import NewHost
from comptoir.link import ContainerCard, ModelOffer
from comptoir.transports.native import NATIVE
from comptoir.worker.events import Event, JobDone
from tests.post import PRICE, Post, open_post

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = {"model": "own", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
REGISTRATION = {"gpu": "x", "models": ["own"], "price_per_token": 0.0001, "no_promotions": True}
REFUSED = [
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", CHAT | {"stream": True}),
    ("/v1/completions", {"model": "own", "prompt": "hi", "max_tokens": 5}),
    ("/run/model", {"model": "own", "input_text": "hi", "max_tokens": 5}),
    ("/house/jobs", {"kind": "chat", "model": "own", "body": CHAT, "output_max": 5}),
    ("/api/jobs", {"containers": ["box"], "data": {}}),
    ("/api/jobs/stream", {"containers": ["box"], "data": {}}),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def post(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Post]:
    """A post whose hosts take no promotional credit, the first of them by the Infrintia API."""
    async with open_post(tmp_path_factory.mktemp("post"), signup_credits_uusd=100_000) as opened:
        status, _ = await ask(opened, "/hosts/register", REGISTRATION)
        assert status == 201
        card = ModelOffer(
            "box", ["container"], container=ContainerCard(), prices={"run": 10**9}, no_promotions=True,
        )  # fmt: skip
        await add_host(opened.core, NewHost(gpu="x", models=(card,), speaks=NATIVE), by_operator=True)
        yield opened


async def ask(post: Post, path: str, body: Any, *, key: str = "") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {key or post.buyer_key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(post.url + path, json=body, headers=headers) as answer,
    ):
        return answer.status, await answer.text()


@pytest.mark.parametrize(("path", "body"), REFUSED)
async def test_the_refusal_says_that_nobody_takes_it(post: Post, path: str, body: dict[str, Any]) -> None:
    status, said = await ask(post, path, body)

    assert 400 <= status < 600
    assert "promotions turns away 1" in said and "takes no promotional credit" in said


async def test_own_money_buys_and_the_host_hears_what_it_has(post: Post) -> None:
    """Of a host that takes promotional credit it is spent first, and the host hears that, too."""
    heard: list[Event] = []
    await post.core.ledger.deposit(owner_id=post.buyer_id, amount_uusd=50_000)

    async with post.worker(promotions=False, prices=PRICE, name="own", on_event=heard.append):
        assert (await ask(post, "/v1/chat/completions", CHAT | {"model": "trivial"}))[0] == 200
    async with post.worker(prices=PRICE, name="any", on_event=heard.append):
        assert (await ask(post, "/v1/chat/completions", CHAT | {"model": "trivial"}))[0] == 200

    own, promotional = [event for event in heard if isinstance(event, JobDone)]
    assert own.promo_uusd == 0 < own.balance_uusd
    assert promotional.promo_uusd == promotional.balance_uusd > 0
