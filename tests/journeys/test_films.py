"""Films, bought for real: a file goes up, a host makes it into another, it comes down, and the books are exact; also
when the host is killed in the middle, or the buyer has had enough."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from comptoir.kinds.ffmpeg import VIDEO_MS
from comptoir.kinds.ffmpeg.made import MadeFilm
from comptoir.kinds.files import FileExtra
from comptoir.receipts import read_registry, verify
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig
from tests.chaos.worker import main as work
from tests.journeys.forked import Forked
from tests.post import Post, open_post
from tests.worker.engines.ffmpeg.conftest import Films
from tests.worker.sandbox.conftest import living

PRICES = {VIDEO_MS.name: 1_000_000}
"""A micro-dollar a unit."""
OPTIONS = {"threads": 1}


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Films:
    return Films(tmp_path_factory.mktemp("films"))


class Buyer:
    """Somebody with a key and films."""

    def __init__(self, post: Post, session: aiohttp.ClientSession, films: Films) -> None:
        self.post, self.session, self.films = post, session, films
        self.headers = {"authorization": f"Bearer {post.buyer_key}"}

    async def order(self, film: str, *, status: int = 201, **fields: Any) -> Any:
        """Bring a film up and order what *fields* say of it."""
        url = f"{self.post.url}/house/files?name={film}"
        async with self.session.post(url, data=self.films(film), headers=self.headers) as answer:
            assert answer.status == 201, await answer.text()
            file = (await answer.json())["id"]
        body = {"inputs": [{"file": file}], "preset": "ultrafast", "seconds_max": 30} | fields
        order = {"kind": "ffmpeg", "model": "ffmpeg", "body": body}
        async with self.session.post(f"{self.post.url}/house/jobs", json=order, headers=self.headers) as answer:
            said = await answer.json()
            assert answer.status == status, said
            return said

    async def follow(self, job_id: str) -> tuple[list[FileExtra], Any]:
        """Follow a job to its end; return what its frames said beside their text, and how it ended."""
        url = f"{self.post.url}/house/jobs/{job_id}/frames"
        async with asyncio.timeout(60), self.session.get(url, headers=self.headers) as answer:
            text = (await answer.read()).decode()
        said = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
        return [msgspec.json.decode(json.dumps(each.get("extra", {})), type=FileExtra) for each in said[:-1]], said[-1]

    async def file(self, file: str) -> tuple[int, bytes]:
        """Bring a file down."""
        async with self.session.get(f"{self.post.url}/house/files/{file}", headers=self.headers) as answer:
            return answer.status, await answer.read()


def made_in(frames: list[FileExtra]) -> MadeFilm:
    """Return the description in the last frame."""
    result = frames[-1].result
    assert isinstance(result, msgspec.Raw), frames
    return msgspec.json.decode(result, type=MadeFilm)


@contextlib.asynccontextmanager
async def trading(folder: Path, films: Films, **settings: Any) -> AsyncIterator[Buyer]:
    async with open_post(folder, **settings) as post, aiohttp.ClientSession() as session:
        yield Buyer(post, session, films)


def host(post: Post, name: str = "worker") -> contextlib.AbstractAsyncContextManager[asyncio.Event]:
    return post.worker(engine="ffmpeg", options=OPTIONS, prices=PRICES, slots=2, name=name)


@contextlib.contextmanager
def host_process(post: Post, folder: Path) -> Iterator[Forked]:
    """Run a host of its own, to be killed."""
    config = WorkerConfig(
        url=post.url,
        engines=[EngineSpec("ffmpeg", OPTIONS)],
        slots=1,
        prices=PRICES,
        measure=False,
        state_dir=str(folder / "mortal"),
    )
    path = folder / "mortal.json"
    path.write_bytes(msgspec.json.encode(config))
    process = Forked(work, str(path), log=folder / "mortal.log")
    try:
        yield process
    finally:
        process.kill()


class TestBought:
    async def test_made_delivered_billed_and_receipted(self, films: Films, tmp_path: Path) -> None:
        async with trading(tmp_path, films) as buyer, host(buyer.post):
            job = await buyer.order("film.mp4", output_format="webm", resolution="32x24", seconds_max=10)
            frames, end = await buyer.follow(job["id"])
            last, made = frames[-1], made_in(frames)
            assert last.artifact is not None
            status, content = await buyer.file(last.artifact.file)
            envelope = await buyer.post.core.receipts.envelope_of(bytes.fromhex(job["id"][4:]))
            verdict = verify(envelope, read_registry(await buyer.post.core.receipts.registry()))

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
            with host_process(post, tmp_path) as mortal:
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
            assert end["cost_uusd"] == made_in(frames).units


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
