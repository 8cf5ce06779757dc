"""Speech, bought for real: a sound goes up, a host writes it down, the books are exact; also if the host is killed."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comptoir.kinds.whisper import AUDIO_MS
from comptoir.kinds.whisper.spoken import SpokenExtra, Transcript
from comptoir.worker.engines.registry import EngineSpec
from tests.journeys.media import MediaBuyer, host_process, result_in
from tests.post import Post, open_post
from tests.worker.engines.whisper.conftest import Sounds, tiny
from tests.worker.engines.whisper.tiny_weights import SAID

PRICES = {AUDIO_MS.name: 1_000_000}
"""A micro-dollar a millisecond."""


def options(model: str = "tiny") -> dict[str, Any]:
    return {"threads": 1, "device": "cpu", "model": f"{model}:{tiny(model)}"}


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Sounds:
    return Sounds(tmp_path_factory.mktemp("sounds"))


class Buyer(MediaBuyer[SpokenExtra]):
    """Somebody with a key and sounds."""

    async def order(self, name: str, *, model: str = "tiny", status: int = 201, **fields: Any) -> Any:
        return await super().order(name, model=model, status=status, **fields)


@contextlib.asynccontextmanager
async def trading(folder: Path, sounds: Sounds, **settings: Any) -> AsyncIterator[Buyer]:
    fields = {"vad": False, "seconds_max": 100}
    async with open_post(folder, **settings) as post, aiohttp.ClientSession() as session:
        yield Buyer(post, session, sounds, kind="whisper", fields=fields, extra=SpokenExtra)


def host(
    post: Post, name: str = "worker", *, model: str = "tiny"
) -> contextlib.AbstractAsyncContextManager[asyncio.Event]:
    return post.worker(engine="whisper", options=options(model), prices=PRICES, slots=1, name=name)


class TestBought:
    async def test_heard_delivered_billed_and_receipted(self, sounds: Sounds, tmp_path: Path) -> None:
        async with trading(tmp_path, sounds) as buyer, host(buyer.post):
            job = await buyer.order("short.wav", outputs=["srt"])
            frames, end = await buyer.follow(job["id"])
            verdict = await buyer.verified(job["id"])

            assert (end["state"], end["finish_reason"]) == ("completed", "stop"), end
            assert result_in(frames, Transcript).text == " ".join(SAID[:3])
            assert [each.artifact.name for each in frames if each.artifact] == ["short.srt"]
            assert end["cost_uusd"] == 5_000 < job["hold_uusd"]
            assert verdict.ok and verdict.statement is not None, verdict
            (part,) = verdict.statement.predicate.segments
            assert [(unit.unit, unit.count) for unit in part.units] == [("audio_ms", 5_000)]

    async def test_nothing_said_is_an_empty_text_and_paid_by_its_length(self, sounds: Sounds, tmp_path: Path) -> None:
        async with trading(tmp_path, sounds) as buyer, host(buyer.post):
            for sound, cost in (("silence.wav", 3_000), ("nothing.wav", 0)):
                job = await buyer.order(sound)
                frames, end = await buyer.follow(job["id"])

                assert (end["state"], result_in(frames, Transcript).text, end["cost_uusd"]) == (
                    "completed",
                    "",
                    cost,
                ), end

    async def test_what_a_model_can_not_is_refused_by_field_before_the_hold(
        self, sounds: Sounds, tmp_path: Path
    ) -> None:
        async with trading(tmp_path, sounds) as buyer, host(buyer.post, model="tiny.en"):
            await buyer.post.until_linked()
            for fields, missing in (({"task": "translate"}, "translate"), ({"language": "German"}, "multilingual")):
                said = await buyer.order("short.wav", model="tiny.en", status=422, **fields)

                assert said["error"]["code"] == "CapabilityMissing" and missing in said["error"]["message"], said
            assert (await buyer.post.core.ledger.account(buyer.post.buyer_id)).balance_uusd == 1_000_000


class TestKilled:
    async def test_another_host_goes_on_behind_the_last_segment_and_the_buyer_pays_once(
        self, sounds: Sounds, tmp_path: Path
    ) -> None:
        """Kill -9 in the middle: what was told whole is paid to the first, the rest to the second."""
        async with trading(tmp_path, sounds, host_away_s=60.0) as buyer:
            post = buyer.post
            with host_process(post, tmp_path, EngineSpec("whisper", options()), PRICES) as mortal:
                await post.until_linked()
                job = await buyer.order("long.wav", beam_size=10)
                live = post.core.jobs.live.get(bytes.fromhex(job["id"][4:]))
                async with asyncio.timeout(30):
                    while live is None or not live.count:
                        await asyncio.sleep(0.005)
                        live = post.core.jobs.live.get(bytes.fromhex(job["id"][4:]))
                mortal.send_signal(signal.SIGKILL)
                await mortal.wait()
            async with host(post, "second"):
                frames, end = await buyer.follow(job["id"])
                verdict = await buyer.verified(job["id"])

            made = result_in(frames, Transcript)
            assert (end["state"], end["finish_reason"]) == ("completed", "stop"), end
            assert not any(each.begun_again for each in frames)
            assert made.duration == 70.0 and end["cost_uusd"] == 70_000
            told = [each.segment for each in frames if each.segment]
            assert [each.id for each in told] == list(range(len(told))), "told twice"
            assert verdict.ok and verdict.statement is not None, verdict
            counts = [unit.count for part in verdict.statement.predicate.segments for unit in part.units]
            assert sum(counts) == 70_000 and len(counts) == 2
