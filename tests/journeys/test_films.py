"""Films, bought for real: a file goes up, a host makes it into another, it comes down, and the books are exact; also
when the host is killed in the middle, or the buyer has had enough."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comptoir.kinds.ffmpeg import VIDEO_MS
from comptoir.kinds.ffmpeg.made import MadeFilm
from comptoir.kinds.files import FileExtra
from comptoir.worker.engines.registry import EngineSpec
from tests.journeys.media import MediaBuyer, host_process, result_in
from tests.post import Post, open_post
from tests.worker.engines.ffmpeg.conftest import Films
from tests.worker.sandbox.conftest import living

PRICES = {VIDEO_MS.name: 1_000_000}
"""A micro-dollar a unit."""
OPTIONS = {"threads": 1}


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Films:
    return Films(tmp_path_factory.mktemp("films"))


class Buyer(MediaBuyer[FileExtra]):
    """Somebody with a key and films."""

    async def order(self, name: str, *, model: str = "ffmpeg", status: int = 201, **fields: Any) -> Any:
        return await super().order(name, model=model, status=status, **fields)

    async def file(self, file: str) -> tuple[int, bytes]:
        """Bring a file down."""
        async with self.session.get(f"{self.post.url}/house/files/{file}", headers=self.headers) as answer:
            return answer.status, await answer.read()


@contextlib.asynccontextmanager
async def trading(folder: Path, films: Films, **settings: Any) -> AsyncIterator[Buyer]:
    fields = {"preset": "ultrafast", "seconds_max": 30}
    async with open_post(folder, **settings) as post, aiohttp.ClientSession() as session:
        yield Buyer(post, session, films, kind="ffmpeg", fields=fields, extra=FileExtra)


def host(post: Post, name: str = "worker") -> contextlib.AbstractAsyncContextManager[asyncio.Event]:
    return post.worker(engine="ffmpeg", options=OPTIONS, prices=PRICES, slots=2, name=name)


class TestBought:
    async def test_made_delivered_billed_and_receipted(self, films: Films, tmp_path: Path) -> None:
        async with trading(tmp_path, films) as buyer, host(buyer.post):
            job = await buyer.order("film.mp4", output_format="webm", resolution="32x24", seconds_max=10)
            frames, end = await buyer.follow(job["id"])
            last, made = frames[-1], result_in(frames, MadeFilm)
            assert last.artifact is not None
            status, content = await buyer.file(last.artifact.file)
            verdict = await buyer.verified(job["id"])

            assert (end["state"], end["finish_reason"]) == ("completed", "stop")
            assert made.video is not None and (made.video.codec, made.video.width) == ("vp9", 32)
            assert status == 200 and b"webm" in content[:64] and len(content) == made.size
            assert last.artifact.name == "film.webm"
            assert end["cost_uusd"] == made.units < job["hold_uusd"], "a micro-dollar a unit, and not the whole hold"
            assert verdict.ok and verdict.statement is not None, verdict
            (part,) = verdict.statement.predicate.segments
            assert [(unit.unit, unit.count) for unit in part.units] == [("video_ms", made.units)]

    async def test_what_the_body_rules_out_is_refused_before_anything_is_held(
        self, films: Films, tmp_path: Path
    ) -> None:
        async with trading(tmp_path, films) as buyer, host(buyer.post):
            said = await buyer.order("film.mp4", status=422, codec="vp9", output_format="mov")

            assert said["error"]["field"] == "body" and "codec: vp9 does not go" in said["error"]["message"]
            assert (await buyer.post.core.ledger.account(buyer.post.buyer_id)).held_uusd == 0

    @pytest.mark.parametrize("hosts", [1, 2])
    async def test_what_only_the_input_rules_out_costs_nothing_and_blames_nobody(
        self, hosts: int, films: Films, tmp_path: Path
    ) -> None:
        """One broken input, honest hosts: another is asked if there is one, the job ends, and none is the worse."""
        async with trading(tmp_path, films) as buyer, contextlib.AsyncExitStack() as stack:
            for number in range(hosts):
                await stack.enter_async_context(host(buyer.post, f"host-{number}"))
            job = await buyer.order("playlist.mp4")
            _, end = await buyer.follow(job["id"])
            names = [each.published_reputation for each in buyer.post.core.fleet]

            assert end["state"] == "failed" and end["error_message"].startswith("inputs: "), end
            assert end["cost_uusd"] == 0
            assert len(names) == hosts and len(set(names)) == 1


class TestKilled:
    async def test_another_host_begins_again_and_the_buyer_pays_once(self, films: Films, tmp_path: Path) -> None:
        """Kill -9 in the middle: what it ran is dead with it, and it has earned nothing."""
        mark = "-g\0973"
        async with trading(tmp_path, films, host_away_s=60.0) as buyer:
            post = buyer.post
            with host_process(post, tmp_path, EngineSpec("ffmpeg", OPTIONS), PRICES) as mortal:
                await post.until_linked()
                fields = {"preset": "veryslow", "seconds_max": 60, "custom_args": ["-g", "973", "-t", "2"]}
                job = await buyer.order("long.mp4", **fields)
                async with asyncio.timeout(20):
                    while not await asyncio.to_thread(living, mark):
                        await asyncio.sleep(0.02)
                mortal.send_signal(signal.SIGKILL)
                await mortal.wait()
                async with asyncio.timeout(10):
                    while await asyncio.to_thread(living, mark):
                        await asyncio.sleep(0.02)
            async with host(post, "second"):
                frames, end = await buyer.follow(job["id"])

            assert (end["state"], end["finish_reason"]) == ("completed", "stop"), end
            assert [each.begun_again for each in frames].count(True) == 1 and not frames[0].begun_again
            assert end["cost_uusd"] == result_in(frames, MadeFilm).units


class TestCancelled:
    async def test_it_stops_at_once_and_costs_nothing(self, films: Films, tmp_path: Path) -> None:
        mark = "-g\0971"
        async with trading(tmp_path, films) as buyer, host(buyer.post):
            job = await buyer.order("long.mp4", preset="veryslow", custom_args=["-g", "971"])
            async with asyncio.timeout(20):
                while not await asyncio.to_thread(living, mark):
                    await asyncio.sleep(0.02)
            url = f"{buyer.post.url}/house/jobs/{job['id']}/cancel"
            async with buyer.session.post(url, headers=buyer.headers) as answer:
                assert answer.status < 300, await answer.text()
            _, end = await buyer.follow(job["id"])
            async with asyncio.timeout(10):
                while await asyncio.to_thread(living, mark):
                    await asyncio.sleep(0.02)

            assert end["state"] == "cancelled" and end["cost_uusd"] == 0
