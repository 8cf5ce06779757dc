"""A trading post with a buyer, an operator, and a client for each."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from comptoir.dispatch import Core
from tests.dialects.infrintia.caller import Caller
from tests.post import Post, open_post


@dataclass
class Market:
    """Everybody who comes to the post."""

    post: Post
    buyer: Caller
    admin: Caller
    anyone: Caller

    @property
    def core(self) -> Core:
        """The core."""
        return self.post.core


def market_of(post: Post, session: aiohttp.ClientSession) -> Market:
    """Return clients for *post*."""
    return Market(
        post,
        Caller(session, post.url, post.buyer_key),
        Caller(session, post.url, post.admin_key),
        Caller(session, post.url),
    )


@pytest.fixture
def settings() -> dict[str, Any]:
    """Settings of the post; override in a test module or by parametrisation."""
    return {}


@pytest.fixture
async def market(tmp_path: Path, settings: dict[str, Any]) -> AsyncIterator[Market]:
    """A running post."""
    async with open_post(tmp_path, **settings) as post, aiohttp.ClientSession() as session:
        yield market_of(post, session)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    """A running post for all tests of a module that leave nothing behind that another would trip over."""
    folder = tmp_path_factory.mktemp("shared")
    plenty = {"signup_credits_uusd": 10**9, "allow_private_endpoint_urls": True, "push_timeout_s": 5.0}
    async with open_post(folder, **plenty) as post, aiohttp.ClientSession() as session:
        yield market_of(post, session)
