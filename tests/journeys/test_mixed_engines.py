"""An answer begun by one engine and finished by another of a different kind, at a real post."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import JobState, LiveJob, Reader
from comptoir.link import Frame
from comptoir.receipts import read_registry, verify
from comptoir.worker.engines.base import EngineRequest
from comptoir.worker.engines.demo import DemoEngine
from tests.post import open_post
from tests.worker.engines.llama_cpp_http import serve_llama_cpp
from tests.worker.misbehaving import MODEL, Misdeed, misbehaving

BODY = msgspec.json.encode(
    {
        "model": "comptoir-demo",
        "messages": [{"role": "user", "content": "Send me an emoji"}],
        "temperature": 0,
        "max_tokens": 100,
    }
)

OFFER = msgspec.structs.replace(MODEL, name="comptoir-demo", price_out_uusd_per_mtok=MODEL.price_out_uusd_per_mtok - 1)
"""A little cheaper than the other host, so that it is asked first, and its hold covers the other."""


async def whole_answer() -> list[Frame]:
    """Return the demo engine's frames for `BODY`."""
    engine = DemoEngine()
    await engine.start()
    request = EngineRequest("chat", "comptoir-demo", BODY)
    frames = [item async for item in engine.run(request) if isinstance(item, Frame)]
    await engine.close()
    return frames


async def text_of(job: LiveJob) -> str:
    reader, text = Reader(job), ""
    while (frames := await reader.next()) is not None:
        text += "".join(frame.text for frame in frames)
    return text


class TestMixedEngines:
    @pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
    async def test_an_http_server_goes_on_where_the_demo_engine_failed(self, tmp_path: Path, place: float) -> None:
        frames = await whole_answer()
        cut = max(1, round(len(frames) * place))
        with serve_llama_cpp() as (url, key):
            options = {"base_url": url, "api_key": key, "aliases": "comptoir-demo:real"}
            async with (
                open_post(tmp_path) as post,
                post.worker(engine="openai", options=options),
                misbehaving(post.url, Misdeed.FAIL, after=cut, answer=frames, models=[OFFER]) as first,
            ):
                await post.until_linked(2)
                order = Order(post.buyer_id, "openai", "chat", "comptoir-demo", BODY, 100, False)
                job = await submit(post.core, order)
                async with asyncio.timeout(10):
                    text = await text_of(job)

                assert first.misbehaved.is_set()
                assert text == "".join(frame.text for frame in frames)
                assert (job.state, job.finish_reason) == (JobState.COMPLETED, "stop")
                registry = read_registry(await post.core.receipts.registry())
                verdict = verify(await post.core.receipts.envelope_of(job.id), registry)
                assert verdict.ok
