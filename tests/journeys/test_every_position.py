"""The demo model answers greedily, so the answer that lost its host can be compared with the one that did not: token
for token, for a host that dies after every number of frames, as every kind of client reads it.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from comptoir.dispatch import watch
from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import JobState, LiveJob
from comptoir.link import Frame, ModelOffer
from comptoir.receipts import read_registry, verify
from comptoir.reports import audit
from tests.journeys.test_unbroken import host_of
from tests.post import Post, open_post
from tests.worker.misbehaving import MODEL, Misdeed, misbehaving

DEMO = "comptoir-demo"
QUESTION = "What is Comptoir?"
MAX_TOKENS = 200


@dataclass
class Demo:
    """A trading post with one demo worker, and what it answers when nothing happens."""

    post: Post
    host_id: bytes
    frames: list[Frame]
    prompt_tokens: int

    @property
    def offer(self) -> ModelOffer:
        """The demo model as a scripted worker offers it."""
        return msgspec.structs.replace(MODEL, name=DEMO)

    @property
    def text(self) -> str:
        """The undisturbed answer."""
        return "".join(frame.text for frame in self.frames)

    def only(self, *, scripted: bool) -> None:
        """Keep new jobs from the demo worker, or let it have them again."""
        fleet = self.post.core.fleet
        if scripted:
            fleet.drain(self.host_id)
        else:
            fleet.resume(self.host_id)


def body(*, stream: bool = False) -> dict[str, object]:
    return {
        "model": DEMO,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": MAX_TOKENS,
        "stream": stream,
    }


async def buy(post: Post) -> LiveJob:
    raw = json.dumps(body()).encode()
    return await submit(post.core, Order(post.buyer_id, "test", "chat", DEMO, raw, MAX_TOKENS, True))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Demo]:
    """Give an open post with a demo worker and its undisturbed answer; loading the model takes a second."""
    folder: Path = tmp_path_factory.mktemp("demo")
    async with open_post(folder, hosts_max=10_000) as post, post.worker(engine="demo", slots=2):
        job = await buy(post)
        async with asyncio.timeout(30):
            await job.ended()
        assert job.state == JobState.COMPLETED
        assert job.host_id is not None
        yield Demo(post, job.host_id, list(job.frames), job.usage.prompt_tokens)
        assert await audit(post.core.db) == []


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Don't wait for a worker that is not coming back."""
    monkeypatch.setattr(watch, "RELINK_BRIEF_S", 0.005)
    # One host after another drops here, so fast that it would be taken for the line's fault, and waited for.
    monkeypatch.setattr(watch, "TOGETHER_MIN", 1_000_000)


@pytest.mark.asyncio(loop_scope="module")
class TestEveryPosition:
    @pytest.mark.parametrize("misdeed", [Misdeed.FAIL, Misdeed.DROP], ids=str)
    async def test_the_answer_is_the_one_that_nothing_happened_to(self, demo: Demo, misdeed: Misdeed) -> None:
        post, whole = demo.post, demo.frames
        registry = read_registry(await post.core.receipts.registry())
        cuts = set()
        for after in range(len(whole) + 1):
            demo.only(scripted=True)
            async with misbehaving(post.url, misdeed, after=after, answer=whole, models=[demo.offer]) as bad:
                job = await buy(post)
                demo.only(scripted=False)
                async with asyncio.timeout(20):
                    await job.ended()

                assert [(f.text, f.tokens) for f in job.frames] == [(f.text, f.tokens) for f in whole], after
                assert (job.state, job.finish_reason) == (JobState.COMPLETED, "stop")
                assert (job.usage.prompt_tokens, job.usage.completion_tokens) == (demo.prompt_tokens, len(whole))
                assert host_of(bad) != demo.host_id
            registry = read_registry(await post.core.receipts.registry())
            verdict = verify(await post.core.receipts.envelope_of(job.id), registry)
            assert verdict.ok, verdict
            assert verdict.statement is not None
            cuts.add(verdict.statement.predicate.segments[0].end_frame)
        if misdeed is Misdeed.FAIL:
            assert cuts == set(range(1, len(whole) + 1))


async def over_openai(post: Post, *, stream: bool) -> tuple[str, str, dict[str, int]]:
    """Ask over OpenAI's API; return text, finish reason and usage."""
    asked = body(stream=stream) | ({"stream_options": {"include_usage": True}} if stream else {})
    headers = {"authorization": f"Bearer {post.buyer_key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{post.url}/v1/chat/completions", json=asked, headers=headers) as response,
    ):
        assert response.status == 200
        if not stream:
            whole = await response.json()
            choice = whole["choices"][0]
            return choice["message"]["content"], choice["finish_reason"], whole["usage"]
        text, reason, usage = "", "", {}
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            assert "error" not in chunk, chunk
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
                reason = choice["finish_reason"] or reason
        return text, reason, usage


async def over_infrintia(post: Post, *, hang_up_after: int | None = None) -> tuple[str, list[int]]:
    """Buy over Infrintia and read the stream, with one reconnect after so many events; return text and event ids."""
    headers = {"authorization": f"Bearer {post.buyer_key}"}
    text, ids = "", list[int]()
    async with aiohttp.ClientSession(headers=headers) as session:
        asked = {"model": DEMO, "input_text": QUESTION, "max_tokens": MAX_TOKENS, "temperature": 0.0}
        async with session.post(f"{post.url}/run/model", json=asked) as response:
            job_id = (await response.json())["job_id"]
        while True:
            resume = {"last-event-id": str(ids[-1])} if ids else {}
            async with session.get(f"{post.url}/jobs/{job_id}/stream", headers=resume) as response:
                async for line in response.content:
                    if line.startswith(b"id: "):
                        ids.append(int(line[4:]))
                    elif line.startswith(b"data: {"):
                        text += json.loads(line[6:])["token"]
                        if hang_up_after is not None and len(ids) == hang_up_after:
                            hang_up_after = None
                            break
                    elif line.startswith(b"data: [DONE]"):
                        return text, ids


@pytest.mark.asyncio(loop_scope="module")
class TestEveryClient:
    @pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
    @pytest.mark.parametrize("after", [1, 5])
    async def test_openai(self, demo: Demo, after: int, stream: bool) -> None:
        demo.only(scripted=True)
        async with misbehaving(
            demo.post.url, Misdeed.DROP, after=after, answer=demo.frames, models=[demo.offer]
        ) as bad:
            asked = asyncio.create_task(over_openai(demo.post, stream=stream))
            async with asyncio.timeout(20):
                await bad.misbehaved.wait()
                demo.only(scripted=False)
                text, reason, usage = await asked

        assert (text, reason) == (demo.text, "stop")
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (demo.prompt_tokens, len(demo.frames))

    @pytest.mark.parametrize("hang_up_after", [None, 2, 8])
    async def test_infrintia_also_for_a_reader_that_reconnects(self, demo: Demo, hang_up_after: int | None) -> None:
        demo.only(scripted=True)
        async with misbehaving(demo.post.url, Misdeed.DROP, after=4, answer=demo.frames, models=[demo.offer]) as bad:
            asked = asyncio.create_task(over_infrintia(demo.post, hang_up_after=hang_up_after))
            async with asyncio.timeout(20):
                await bad.misbehaved.wait()
                demo.only(scripted=False)
                text, ids = await asked

        assert text == demo.text
        assert ids == [number for number, frame in enumerate(demo.frames) if frame.text]
