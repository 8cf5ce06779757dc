"""Behind a balancer: a coordinator that stops says so first, and takes jobs until the balancer had time to look
elsewhere."""

import asyncio
import contextlib
from pathlib import Path

import aiohttp

from comptoir.app import open_core, running
from comptoir.dispatch.drain import Shutdown
from comptoir.dispatch.onboard import add_user
from comptoir.settings import Settings
from tests.post import Post

BODY = {"model": "trivial", "input_text": "Explain quantum computing.", "max_tokens": 20}


class TestNotice:
    async def test_it_says_that_it_leaves_and_still_takes_jobs_on_connections_that_end(self, tmp_path: Path) -> None:
        settings = Settings(data=str(tmp_path / "data"), port=0, drain_s=2.0, drain_notice_s=1.0)
        async with contextlib.AsyncExitStack() as stack:
            core = await stack.enter_async_context(open_core(settings))
            buyer = await add_user(core, username="ada", email=None, password=None)
            server = contextlib.AsyncExitStack()
            url = await server.enter_async_context(running(core))
            post = Post(core, url, buyer.user.id, buyer.key, "", tmp_path)
            headers = {"authorization": f"Bearer {buyer.key}"}
            session = await stack.enter_async_context(aiohttp.ClientSession(url, headers=headers))
            async with post.worker():
                async with session.get("/house/status") as before:
                    assert "connection" not in before.headers

                stopping = asyncio.create_task(server.aclose())
                while not core.state(Shutdown).leaving:
                    await asyncio.sleep(0)
                assert not core.state(Shutdown).draining
                async with session.get("/house/status") as status, session.get("/health") as health:
                    assert (await status.json())["status"] == "draining"
                    assert (status.headers["connection"], health.status) == ("close", 503)
                async with session.post("/run/model", json=BODY) as taken:
                    assert taken.status == 202
                async with asyncio.timeout(10):
                    while not core.state(Shutdown).draining:
                        await asyncio.sleep(0.01)
                # Answered or already gone: nothing new is taken in either case.
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.post("/run/model", json=BODY) as refused:
                        assert refused.status == 503
                await stopping
