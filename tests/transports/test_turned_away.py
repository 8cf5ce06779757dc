"""A real worker whose host is suspended, retired or expired, and what hosts hear of names in quarantine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comptoir.dispatch.moderate import catch_up, retire_silent_host
from comptoir.dispatch.onboard import add_host
from comptoir.hosts import INFRINTIA, POLL, NewHost
from comptoir.kit.ids import public
from comptoir.link import ModelOffer
from comptoir.moderation import Verb
from comptoir.transports.link import session
from comptoir.worker import uplink
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.errors import LinkRefused
from comptoir.worker.events import OffersIgnored, Reconnecting
from comptoir.worker.run import WorkerConfig, run_worker
from tests.dispatch.acting import WHY, on_model, on_user, resume, retire, suspend
from tests.post import Post, open_post

SOON_S = 0.02


@pytest.fixture
async def post(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Post]:
    for module in (session, uplink):
        monkeypatch.setattr(module, "SUSPENDED_RETRY_S", SOON_S)
    async with open_post(tmp_path, pulse_s=0.2) as opened:
        yield opened


@asynccontextmanager
async def serving(post: Post) -> AsyncIterator[tuple[bytes, "asyncio.Task[None]", list[Any]]]:
    """Run a worker; give its host's id, its task, and what it told."""
    told: list[Any] = []
    stop = asyncio.Event()
    engine = EngineSpec("bench.trivial_engine:TrivialEngine", {})
    state_dir = str(post.folder / "worker")
    config = WorkerConfig(
        url=post.url, key=post.buyer_key, engines=[engine], measure=False, state_dir=state_dir, drain_s=0.0
    )
    task = asyncio.create_task(run_worker(config, on_event=told.append, stop=stop))
    try:
        await post.until_linked()
        yield next(iter(post.core.channels)), task, told
    finally:
        stop.set()
        await asyncio.wait((task,), timeout=20)
        if not task.cancelled():
            task.exception()


async def until_told(told: list[Any], words: str) -> None:
    """Wait until the worker says why it is not connected, in *words*."""
    async with asyncio.timeout(10):
        while not any(isinstance(one, Reconnecting) and words in one.why for one in told):
            await asyncio.sleep(0.002)


class TestWorker:
    @pytest.mark.parametrize("whom", ["host", "owner"])
    async def test_a_suspended_one_says_why_and_comes_back_when_it_may(self, post: Post, whom: str) -> None:
        core = post.core
        async with serving(post) as (host_id, task, told):
            if whom == "host":
                await suspend(core, host_id)
            else:
                await on_user(core, Verb.USER_SUSPEND, post.buyer_id)
            await until_told(told, "said goodbye: the operator has suspended this host")
            await until_told(told, f"{WHY} (act 1)")
            assert core.channels == {} and not task.done()

            if whom == "host":
                await resume(core, host_id)
            else:
                await on_user(core, Verb.USER_RESUME, post.buyer_id)

            await post.until_linked()
            assert list(core.channels) == [host_id]

    async def test_a_retired_one_ends_with_the_reason(self, post: Post) -> None:
        async with serving(post) as (host_id, task, _):
            await retire(post.core, host_id)

            with pytest.raises(LinkRefused, match=WHY):
                await asyncio.wait_for(task, 10)
        assert len(post.core.fleet) == 0

    async def test_one_that_was_retired_for_its_silence_registers_anew(self, post: Post) -> None:
        core = post.core
        async with serving(post) as (host_id, _, _):
            pass
        assert await retire_silent_host(core, host_id, unless_heard_after_ms=1 << 60, reason="not heard for 30 days")
        await catch_up(core)

        async with serving(post) as (new_id, _, _):
            assert new_id != host_id
            assert core.fleet.get(new_id).row.owner_id == post.buyer_id
        async with serving(post) as (again, _, _):
            assert again == new_id


class TestNamesInQuarantine:
    async def test_each_host_is_told_with_its_sign_of_life(self, post: Post) -> None:
        core = post.core
        polls = NewHost(
            gpu="x", models=(ModelOffer("trivial", ["chat"]), ModelOffer("other", ["chat"])), transport=POLL
        )
        ours = await add_host(core, NewHost(gpu="x", models=polls.models, transport=POLL, speaks="native"))
        theirs = await add_host(core, NewHost(gpu="x", models=polls.models, transport=POLL, speaks=INFRINTIA))
        asked = (
            (ours.key, "/house/host/pulse", {}, "ignored"),
            (theirs.key, "/hosts/heartbeat", {"host_id": public("host", theirs.host_id)}, "ignored_models"),
        )

        async def told(field: str, key: str, path: str, body: dict[str, str]) -> Any:
            headers = {"authorization": f"Bearer {key}"}
            async with client.post(post.url + path, json=body, headers=headers) as answer:
                return (await answer.json()).get(field)

        async with serving(post) as (_, _, events), aiohttp.ClientSession() as client:
            for key, path, body, field in asked:
                assert not await told(field, key, path, body)
            await on_model(core, Verb.MODEL_QUARANTINE, "trivial")

            for key, path, body, field in asked:
                assert await told(field, key, path, body) == {"trivial": WHY}
            async with asyncio.timeout(10):
                while OffersIgnored({"trivial": WHY}) not in events:
                    await asyncio.sleep(0.002)
                await on_model(core, Verb.MODEL_RELEASE, "trivial")
                while events[-1] != OffersIgnored({}):
                    await asyncio.sleep(0.002)
