"""A trading post with a worker, and a small client that speaks to its house dialect."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from comptoir.dispatch.onboard import NewBuyer, add_user
from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import LiveJob, Reader
from tests.post import Post, open_post


class Caller:
    """Calls the house dialect of one post; a call answers (status, JSON)."""

    def __init__(self, post: Post, session: aiohttp.ClientSession) -> None:
        self.post = post
        self._session = session
        self.stranger: NewBuyer

    @property
    def host_key(self) -> str:
        """The key of the first worker."""
        state = msgspec.json.decode((self.post.folder / "worker" / "host.json").read_bytes())
        key: str = state["api_key"]
        return key

    async def call(
        self,
        method: str,
        path: str,
        *,
        key: str | None = "buyer",
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        keys = {"buyer": self.post.buyer_key, "admin": self.post.admin_key, "stranger": self.stranger.key}
        sent = dict(headers or {})
        if key is not None:
            sent["authorization"] = f"Bearer {self.host_key if key == 'host' else keys.get(key, key)}"
        data = msgspec.json.encode(body) if body is not None else None
        async with self._session.request(method, self.post.url + "/house" + path, data=data, headers=sent) as answer:
            return answer.status, msgspec.json.decode(await answer.read())

    async def get(self, path: str, *, key: str | None = "buyer") -> tuple[int, Any]:
        return await self.call("GET", path, key=key)

    async def buy(self, *, tokens: int = 5, wait: bool = True) -> LiveJob:
        """Buy one job as the buyer and read it to its end."""
        body = b'{"model":"trivial","messages":[{"role":"user","content":"hi"}],"max_tokens":%d}' % tokens
        job = await submit(self.post.core, Order(self.post.buyer_id, "test", "chat", "trivial", body, tokens, True))
        if wait:
            reader = Reader(job)
            while await reader.next() is not None:
                pass
        return job


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Caller]:
    """A post with one fast worker."""
    async with open_post(tmp_path) as post, aiohttp.ClientSession() as session, post.worker():
        caller = Caller(post, session)
        caller.stranger = await add_user(post.core, username="eve", email=None, password=None)
        yield caller


@pytest.fixture
async def slow_core(tmp_path: Path) -> AsyncIterator[Caller]:
    """A post whose one worker has one slot and takes its time."""
    async with (
        open_post(tmp_path) as post,
        aiohttp.ClientSession() as session,
        post.worker(slots=1, options={"per_s": 50.0}),
    ):
        caller = Caller(post, session)
        caller.stranger = await add_user(post.core, username="eve", email=None, password=None)
        yield caller
