"""A reader may leave at any event and come back at any coordinator: what it puts together is the answer, each token
once."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import JobState
from comptoir.kit.ids import public
from tests.chaos.engine import MODEL, Wanted, prompt_of
from tests.cluster.posts import Posts, open_posts
from tests.post import Post
from tests.redis_server import RedisServer

FRAMES, PER_S = 120, 150.0
EVENTS_MAX = 25
"""Most events that a reader takes at one place."""


@pytest.fixture
async def posts(tmp_path: Path, postgres_address: str, redis_server: RedisServer) -> AsyncIterator[Posts]:
    async with open_posts(tmp_path, database=postgres_address, bus=redis_server.url) as opened:
        yield opened


def order(post: Post, wanted: Wanted) -> Order:
    messages = [{"role": "user", "content": prompt_of(wanted)}]
    body = json.dumps({"model": MODEL, "messages": messages, "max_tokens": 1000}).encode()
    return Order(post.buyer_id, "infrintia", "chat", MODEL, body, 1000, True)


class Hopper:
    """A reader that never stays."""

    def __init__(self, posts: Posts, job_id: str, *, seed: int) -> None:
        self._posts, self._path = posts, f"/jobs/{job_id}/stream"
        self._random = random.Random(seed)
        self.tokens: dict[int, str] = {}
        self.visits = 0

    async def read(self) -> str:
        """Read to the end, here and there; return the whole."""
        while not await self._visit(self._random.choice(self._posts.each), self._random.randint(1, EVENTS_MAX)):
            self.visits += 1
        assert sorted(self.tokens) == list(range(len(self.tokens))), "an event is missing"
        return "".join(self.tokens[number] for number in sorted(self.tokens))

    async def _visit(self, post: Post, events_max: int) -> bool:
        """Take at most *events_max* events at *post*; tell whether that was the end."""
        headers = {"authorization": f"Bearer {post.buyer_key}"}
        if self.tokens:
            headers["last-event-id"] = str(max(self.tokens))
        async with (
            aiohttp.ClientSession(post.url, headers=headers) as session,
            session.get(self._path) as response,
        ):
            assert response.status == 200, await response.text()
            taken, number = 0, -1
            async for raw in response.content:
                line = raw.decode().rstrip("\n")
                if line.startswith("id: "):
                    number = int(line[4:])
                elif line == "data: [DONE]":
                    return True
                elif line.startswith("data: "):
                    assert number not in self.tokens, "an event came twice"
                    self.tokens[number] = json.loads(line[6:])["token"]
                    taken += 1
                    if taken == events_max:
                        return False
        raise AssertionError("the stream broke off")


class TestReaders:
    async def test_one_that_hops_between_coordinators_has_the_whole_answer(self, posts: Posts) -> None:
        async with posts[1].worker(engine="tests.chaos.engine:NumberedEngine"):
            await posts.until_seen(posts[0], free=8)
            job = await submit(posts[0].core, order(posts[0], Wanted("a", FRAMES, per_s=PER_S)))
            hoppers = [Hopper(posts, public("job", job.id), seed=seed) for seed in range(6)]

            texts = await asyncio.wait_for(asyncio.gather(*(hopper.read() for hopper in hoppers)), 30)
            await asyncio.wait_for(job.ended(), 20)

            frames, _ = await posts[1].core.jobs.answer(job.id)
            assert texts == ["".join(frame.text for frame in frames)] * len(hoppers)
            assert min(hopper.visits for hopper in hoppers) > 2
            assert job.state == JobState.COMPLETED

    async def test_one_that_comes_after_the_end_has_it_from_any_event_at_any_coordinator(self, posts: Posts) -> None:
        async with posts[0].worker(engine="tests.chaos.engine:NumberedEngine"):
            job = await submit(posts[0].core, order(posts[0], Wanted("a", 20)))
            await asyncio.wait_for(job.ended(), 20)

            text = await Hopper(posts, public("job", job.id), seed=1).read()
            for at in range(len(job.frames) + 1):
                late = Hopper(posts, public("job", job.id), seed=at)
                late.tokens = {number: frame.text for number, frame in enumerate(job.frames[:at])}
                assert await late.read() == text
