"""A real worker whose host is suspended, retired or expired, and what hosts hear of names in quarantine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from comptoir.dispatch.errors import UnknownModel
from comptoir.dispatch.moderate import catch_up, retire_silent_host
from comptoir.dispatch.onboard import add_host
from comptoir.dispatch.submit import Order, submit
from comptoir.hosts import INFRINTIA, LINK, POLL, PUSH, NewHost
from comptoir.jobs import JobState
from comptoir.kit.ids import public
from comptoir.link import LINK_VERSION, Bye, Hello, ModelOffer, Models, Welcome, decode_from_coordinator, encode
from comptoir.moderation import Verb
from comptoir.transports.link import session
from comptoir.worker import uplink
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.errors import LinkRefused
from comptoir.worker.events import OffersIgnored, Reconnecting
from comptoir.worker.run import WorkerConfig, run_worker
from tests.dispatch.acting import WHY, on_model, on_user, resume, retire, suspend
from tests.post import Post, open_post
from tests.street import until_over
from tests.transports.test_push import serving as serving_at

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


class TestLink:
    async def test_who_says_hello_or_offers_after_the_act_is_refused(
        self, post: Post, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It came in while the act was being put in force."""
        core = post.core
        models = (ModelOffer("m", ["chat"]),)
        made = [await add_host(core, NewHost(gpu="x", models=models, transport=LINK)) for _ in range(2)]
        hello = Hello(LINK_VERSION, "test", 1, list(models), [])
        async with aiohttp.ClientSession() as client:
            late, linked = [
                await client.ws_connect(post.url + "/link", headers={"authorization": f"Bearer {one.key}"})
                for one in made
            ]
            await linked.send_bytes(encode([hello]))
            assert isinstance(decode_from_coordinator(await linked.receive_bytes())[0], Welcome)
            for one in made:
                core.channels.pop(one.host_id, None)
                await core.hosts.bar(one.host_id, for_good=False)

            await late.send_bytes(encode([hello]))
            await linked.send_bytes(encode([Models([ModelOffer("n", ["chat"])], 1)]))

            (bye,) = decode_from_coordinator(await late.receive_bytes())
            assert isinstance(bye, Bye) and "may not serve here" in bye.reason
            assert (await linked.receive(timeout=10)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
            await late.close()
            await linked.close()
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []
        assert core.fleet.models() == []


class TestWithoutLink:
    async def test_a_held_request_ends_at_once_and_the_next_is_refused(self, post: Post) -> None:
        core = post.core
        polls = NewHost(gpu="x", models=(ModelOffer("m", ["chat"]),), transport=POLL, speaks="native")
        made = await add_host(core, polls)
        headers = {"authorization": f"Bearer {made.key}"}
        async with aiohttp.ClientSession(post.url, headers=headers) as client:
            held = asyncio.create_task(client.post("/house/host/jobs/next", json={"wait_s": 25}))
            async with asyncio.timeout(10):
                while not core.fleet.get(made.host_id).slots.waiting:
                    await asyncio.sleep(0.002)

            await suspend(core, made.host_id)

            assert (await asyncio.wait_for(held, 5)).status == 204
            async with client.post("/house/host/jobs/next", json={}) as answer:
                assert answer.status == 403 and WHY in await answer.text()

    async def test_an_address_is_not_called_until_the_host_is_resumed(self, tmp_path: Path) -> None:
        calls: list[str] = []

        async def infer(request: web.Request) -> web.Response:
            calls.append("came")
            if len(calls) == 1:
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    calls.append("closed")
                    raise
            return web.json_response({"output_text": "hi"})

        async with open_post(tmp_path, allow_private_endpoint_urls=True) as post, serving_at(infer) as url:
            core = post.core
            pushed = NewHost(
                gpu="x", models=(ModelOffer("m", ["chat"], text_only=True),), transport=PUSH, endpoint_url=url,
                speaks=INFRINTIA,
            )  # fmt: skip
            host_id = (await add_host(core, pushed)).host_id
            body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
            order = Order(post.buyer_id, "test", "chat", "m", body, 5, True)
            job = await submit(core, order)
            async with asyncio.timeout(10):
                while calls != ["came"]:
                    await asyncio.sleep(0.002)

                await suspend(core, host_id)

                while calls != ["came", "closed"]:
                    await asyncio.sleep(0.002)
                await until_over(job)
                assert (job.state, job.cost_uusd) == (JobState.FAILED, 0)
                with pytest.raises(UnknownModel):
                    await submit(core, order)
                await resume(core, host_id)
                core.fleet.seen(host_id)
                again = await submit(core, order)
                await until_over(again)
            assert (again.state, calls) == (JobState.COMPLETED, ["came", "closed", "came"])
