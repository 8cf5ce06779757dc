"""A whole worker against the coordinator stand-in: registration, restart, drain, refusals."""

import asyncio
import contextlib
import random
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir.worker import offering as offering_module
from comptoir.worker import run as run_module
from comptoir.worker.backoff import RELINK_FIRST_S
from comptoir.worker.engines.base import EngineError
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.errors import KeyRefused, RegistrationRefused, StateUnusable
from comptoir.worker.events import (
    Connected,
    Draining,
    EngineReady,
    EngineSkipped,
    Event,
    JobDone,
    OfferChanged,
    Reconnecting,
    Registered,
    Stopped,
)
from comptoir.worker.run import WorkerConfig, run_worker
from tests.worker.coordinator_stand_in import HOST_ID, HOST_KEY, Coordinator, make_job, serve
from tests.worker.openai_stand_in import Answer, OpenAIStandIn, Request, serve_openai
from tests.worker.test_uplink import settled

TRIVIAL = EngineSpec("bench.trivial_engine:TrivialEngine", {"tokens": 5})


def openai_at(upstream: OpenAIStandIn) -> EngineSpec:
    return EngineSpec("openai", {"base_url": upstream.base_url})


class Running:
    """A worker in a task of its own."""

    def __init__(self, config: WorkerConfig) -> None:
        self.events: list[Event] = []
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(run_worker(config, on_event=self.events.append, stop=self.stop))

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type[Any], count: int = 1) -> Any:
        async with asyncio.timeout(5):
            while len(self.of(kind)) < count:
                if self.task.done():
                    await self.task
                    raise AssertionError("the worker ended")
                await asyncio.sleep(0.001)
        return self.of(kind)[count - 1]

    async def ended(self) -> None:
        await asyncio.wait_for(asyncio.shield(self.task), 5)


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start(coordinator: Coordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Give a context manager that runs a worker; it is stopped at the end."""
    # An nvidia-smi of the machine the tests run on must not matter.
    monkeypatch.setenv("PATH", str(tmp_path))

    @asynccontextmanager
    async def started(**fields: Any) -> AsyncIterator[Running]:
        config = WorkerConfig(
            **{
                "url": coordinator.url,
                "engines": [TRIVIAL],
                "state_dir": str(tmp_path / "state"),
                "measure": False,
                "drain_s": 5.0,
                **fields,
            }
        )
        running = Running(config)
        try:
            yield running
        finally:
            running.stop.set()
            await asyncio.wait((running.task,))
            if not running.task.cancelled():
                # Tests that expect an error have awaited the task themselves.
                running.task.exception()

    return started


class TestFirstStart:
    async def test_it_registers_with_everything_the_coordinator_wants(
        self, coordinator: Coordinator, start: Start, tmp_path: Path
    ) -> None:
        prices = {"token_in": 10, "token_out": 1_000_000}
        async with start(
            key="ck_owner", invitation="inv_given", prices=prices, slots=3, region="eu", name="box"
        ) as worker:
            registered = await worker.until(Registered)
            await worker.until(Connected)

        body = coordinator.registrations[0]
        assert coordinator.authorizations == ["Bearer ck_owner"]
        assert body["models"] == [
            {
                "name": "trivial",
                "kinds": ["chat", "completion"],
                "context_tokens": 1_000_000,
                "price_in_uusd_per_mtok": 10,
                "price_out_uusd_per_mtok": 1_000_000,
                "can_continue": False,
                "fingerprint": "",
                "prices": prices,
            }
        ]
        assert (body["slots"], body["backend"], body["region"], body["name"]) == (3, "trivial", "eu", "box")
        assert body["invitation"] == "inv_given"
        for field in ("cpu_millis", "memory_mib", "disk_mib"):
            amount = body[field]
            assert isinstance(amount, int) and amount > 0, field
        assert (body["vram_mib"], len(str(body["public_key"]))) == (0, 64) and body["gpu"]
        assert str(body["software"]).startswith("comptoir/")
        assert (registered.host_id, registered.new) == (HOST_ID, True)
        path = tmp_path / "state" / "host.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert msgspec.json.decode(path.read_bytes())["api_key"] == HOST_KEY

    async def test_what_was_not_said_is_not_sent(self, coordinator: Coordinator, start: Start) -> None:
        async with start() as worker:
            await worker.until(Connected)

        assert coordinator.authorizations == [""]
        assert "region" not in coordinator.registrations[0] and "name" not in coordinator.registrations[0]

    async def test_of_several_coordinators_one_that_answers_will_do(
        self, coordinator: Coordinator, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Registration and link go to the next address at once."""
        monkeypatch.setattr(random, "randrange", lambda count: 0)
        async with serve(Coordinator()) as gone:
            url = gone.url
        async with start(url=f"{url},{coordinator.url}") as worker:
            await worker.until(Connected)

        (moved,) = worker.of(Reconnecting)
        assert moved.in_s <= RELINK_FIRST_S
        assert len(coordinator.registrations) == 1

    async def test_a_job_is_run_and_its_earnings_are_said(self, coordinator: Coordinator, start: Start) -> None:
        async with start() as worker:
            await worker.until(Connected)
            attempt = await coordinator.push(make_job(1))
            earned = await worker.until(JobDone)

        assert coordinator.violations == []
        assert attempt.text == " tok" * 5
        assert (earned.state, earned.earned_uusd, earned.balance_uusd) == ("done", 7, 70)

    async def test_engines_are_measured_before_they_are_offered(self, coordinator: Coordinator, start: Start) -> None:
        paced = EngineSpec(TRIVIAL.engine, {"per_s": 2000.0})
        async with start(engines=[paced], measure=True) as worker:
            ready = await worker.until(EngineReady)

        assert ready.models == ["trivial"]
        assert ready.first_token_s > 0 and ready.tokens_per_s > 0

    async def test_a_coordinator_that_is_not_up_yet_is_waited_for(self, coordinator: Coordinator, start: Start) -> None:
        coordinator.register_statuses = [503]
        async with start() as worker:
            await worker.until(Connected)

        assert "503" in worker.of(Reconnecting)[0].why
        assert len(coordinator.registrations) == 1

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (401, "--key"),
            (403, "does not let this host register"),
            (404, "check --url"),
            (422, "refused the registration"),
        ],
    )
    async def test_a_refusal_says_what_to_do(
        self, coordinator: Coordinator, start: Start, status: int, words: str
    ) -> None:
        coordinator.register_statuses = [status]
        async with start() as worker:
            with pytest.raises(RegistrationRefused, match=words) as caught:
                await worker.ended()

        assert caught.value.status == status

    async def test_one_that_was_killed_while_it_registered_comes_as_a_new_host(
        self, coordinator: Coordinator, start: Start
    ) -> None:
        """The coordinator knows its key, and it knows no host id: nobody would ever have let it in again."""
        coordinator.register_statuses = [409]
        async with start() as worker:
            await worker.until(Connected)

        assert len(coordinator.registrations) == 1

    async def test_one_that_is_refused_with_a_new_key_too_says_so(self, coordinator: Coordinator, start: Start) -> None:
        coordinator.register_statuses = [409, 409]
        async with start() as worker:
            with pytest.raises(RegistrationRefused, match="refused the registration"):
                await worker.ended()

    async def test_stop_ends_the_waiting(self, coordinator: Coordinator, start: Start) -> None:
        async with start(url="http://127.0.0.1:1") as worker:
            await worker.until(Reconnecting)
            worker.stop.set()
            await worker.ended()


class TestNextStart:
    async def test_the_key_is_used_again(self, coordinator: Coordinator, start: Start) -> None:
        for _ in range(2):
            async with start() as worker:
                await worker.until(Connected)
                attempt = await coordinator.push(make_job(len(coordinator.attempts)))
                await settled(coordinator)

        assert len(coordinator.registrations) == 1
        assert worker.of(Registered)[0].new is False
        # The second run signs with the same key: the stand-in verified against the one of the registration.
        assert coordinator.violations == [] and attempt.done is not None

    async def test_a_key_that_is_no_longer_good_says_which_file(
        self, coordinator: Coordinator, start: Start, tmp_path: Path
    ) -> None:
        async with start() as worker:
            await worker.until(Connected)
        coordinator.handshake_status = 401

        async with start() as worker:
            with pytest.raises(KeyRefused, match="delete the state file") as caught:
                await worker.ended()

        assert str(tmp_path / "state" / "host.json") in caught.value.message

    async def test_two_at_once_are_refused(self, coordinator: Coordinator, start: Start) -> None:
        async with start() as first:
            await first.until(Connected)
            async with start() as second:
                with pytest.raises(StateUnusable, match="another worker"):
                    await second.ended()


class TestEngines:
    async def test_several_serve_side_by_side(self, coordinator: Coordinator, start: Start) -> None:
        async with serve_openai() as upstream:
            specs = [TRIVIAL, openai_at(upstream)]
            of_one = {"up/model-7b": {"token_out": 5}}
            async with start(engines=specs, prices={"token_out": 9}, model_prices=of_one) as worker:
                await worker.until(Connected)
                attempt = await coordinator.push(make_job(1, model="up/model-7b"))
                await settled(coordinator)

        models = coordinator.hellos[0].models
        assert [(model.name, model.price_out_uusd_per_mtok) for model in models] == [("trivial", 9), ("up/model-7b", 5)]
        assert coordinator.registrations[0]["backend"] == "trivial+openai"
        assert attempt.text == "hi"

    async def test_one_that_fails_is_left_out(self, coordinator: Coordinator, start: Start) -> None:
        specs = [EngineSpec("nobody"), EngineSpec("openai", {"base_url": "http://127.0.0.1:1"}), TRIVIAL]
        async with start(engines=specs) as worker:
            await worker.until(Connected)

        assert [event.engine for event in worker.of(EngineSkipped)] == ["nobody", "openai"]
        assert [model.name for model in coordinator.hellos[0].models] == ["trivial"]

    async def test_none_that_works_ends_the_worker(self, coordinator: Coordinator, start: Start) -> None:
        async with start(engines=[EngineSpec("openai", {"base_url": "http://127.0.0.1:1"})]) as worker:
            with pytest.raises(EngineError, match="is it running"):
                await worker.ended()

        assert coordinator.registrations == []

    async def test_models_that_come_and_go_change_the_offer(
        self, coordinator: Coordinator, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run_module, "MODELS_REFRESH_S", 0.01)
        async with serve_openai() as upstream, start(engines=[openai_at(upstream)]) as worker:
            await worker.until(Connected)
            upstream.models = {"data": [{"id": "new"}]}
            await worker.until(OfferChanged)
            upstream.models_status = 500
            await worker.until(OfferChanged, 2)
            async with asyncio.timeout(5):
                while len(coordinator.offers) < 2:
                    await asyncio.sleep(0.001)

        assert [[model.name for model in offer] for offer in coordinator.offers[:2]] == [["new"], []]


GONE = [502, 503, 404]


class TestDeadEngine:
    """Off the offer at once, and back by itself: no test waits for the half minute between two looks."""

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("DOUBT_S", "WITHDRAWN_S", "ALIVE_S"):
            monkeypatch.setattr(offering_module, name, 0.002)

    @pytest.mark.parametrize("status", GONE)
    async def test_a_job_that_fails_takes_it_off_and_an_answer_brings_it_back(
        self, coordinator: Coordinator, start: Start, status: int
    ) -> None:
        async def gone(_: Request, answer: Answer) -> None:
            await answer.whole(status, b"<html>")

        async with serve_openai() as upstream, start(engines=[openai_at(upstream), TRIVIAL]) as worker:
            await worker.until(Connected)
            good, upstream.handler, upstream.models_status = upstream.handler, gone, status
            failed = await coordinator.push(make_job(1, model="up/model-7b"))
            await asyncio.wait_for(failed.closed.wait(), 5)
            off = await worker.until(OfferChanged)
            upstream.handler, upstream.models_status = good, 200
            back = await worker.until(OfferChanged, 2)
            served = await coordinator.push(make_job(2, model="up/model-7b"))
            await asyncio.wait_for(served.closed.wait(), 5)

        assert failed.fail is not None and failed.fail.fault in ("host", "capacity")
        assert off.models == ["trivial"]
        assert set(back.models) == {"trivial", "up/model-7b"}
        assert served.text == "hi"

    async def test_one_whose_process_ended_is_noticed_without_a_job(
        self, coordinator: Coordinator, start: Start
    ) -> None:
        async with contextlib.AsyncExitStack() as life:
            upstream = await life.enter_async_context(serve_openai())
            spec = EngineSpec("openai", {"base_url": f"127.0.0.1:{upstream.port}"})
            async with start(engines=[spec, TRIVIAL]) as worker:
                await worker.until(Connected)
                await life.aclose()
                off = await worker.until(OfferChanged)
                async with serve_openai(port=upstream.port):
                    back = await worker.until(OfferChanged, 2)

        assert off.models == ["trivial"]
        assert set(back.models) == {"trivial", "up/model-7b"}

    async def test_a_failed_look_is_followed_by_another_at_once(
        self, coordinator: Coordinator, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run_module, "MODELS_REFRESH_S", 0.01)
        async with serve_openai() as upstream, start(engines=[openai_at(upstream)]) as worker:
            await worker.until(Connected)
            monkeypatch.setattr(run_module, "MODELS_REFRESH_S", 3600.0)
            upstream.models_status = 502
            off = await worker.until(OfferChanged)

        assert off.models == []

    async def test_one_that_hangs_after_a_failed_job_is_not_waited_for(
        self, coordinator: Coordinator, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def breaks(_: Request, answer: Answer) -> None:
            upstream.models_hang = True
            answer.reset()

        monkeypatch.setattr(offering_module, "DOUBTED_PROBE_S", 0.01)
        async with serve_openai() as upstream, start(engines=[openai_at(upstream)]) as worker:
            await worker.until(Connected)
            upstream.handler = breaks
            await coordinator.push(make_job(1, model="up/model-7b"))
            off = await worker.until(OfferChanged)

        assert off.models == []

    async def test_a_failed_job_of_an_engine_that_lives_changes_nothing(
        self, coordinator: Coordinator, start: Start
    ) -> None:
        async def fails(_: Request, answer: Answer) -> None:
            await answer.whole(500, b'{"error":"out of memory"}')

        async with serve_openai() as upstream, start(engines=[openai_at(upstream)]) as worker:
            await worker.until(Connected)
            upstream.handler = fails
            asked = upstream.models_asked
            for number in range(1, 4):
                job = await coordinator.push(make_job(number, model="up/model-7b"))
                await asyncio.wait_for(job.closed.wait(), 5)
            async with asyncio.timeout(5):
                while upstream.models_asked == asked:
                    await asyncio.sleep(0.001)

        assert worker.of(OfferChanged) == []


class TestDrain:
    async def test_running_jobs_finish_and_new_ones_are_sent_back(self, coordinator: Coordinator, start: Start) -> None:
        paced = EngineSpec(TRIVIAL.engine, {"per_s": 200.0})
        async with start(engines=[paced]) as worker:
            await worker.until(Connected)
            attempt = await coordinator.push(make_job(1, body=b'{"max_tokens":20}'))
            async with asyncio.timeout(5):
                await attempt.grew.wait()
            worker.stop.set()
            await worker.until(Draining)
            late = await coordinator.push(make_job(2))
            await worker.ended()

        assert coordinator.drains == 1
        assert attempt.text == " tok" * 20 and attempt.done is not None
        assert late.fail is not None and (late.fail.code, late.fail.fault) == ("draining", "capacity")
        assert worker.of(Stopped) == [Stopped(0)]

    async def test_what_takes_too_long_is_failed_not_left_hanging(self, coordinator: Coordinator, start: Start) -> None:
        paced = EngineSpec(TRIVIAL.engine, {"per_s": 100.0})
        async with start(engines=[paced], drain_s=0.05) as worker:
            await worker.until(Connected)
            attempt = await coordinator.push(make_job(1, body=b'{"max_tokens":100000}'))
            async with asyncio.timeout(5):
                await attempt.grew.wait()
            worker.stop.set()
            await worker.ended()

        assert attempt.fail is not None and (attempt.fail.code, attempt.fail.fault) == ("host_stopping", "host")
        assert worker.of(Stopped) == [Stopped(1)]

    async def test_an_idle_worker_stops_at_once(self, coordinator: Coordinator, start: Start) -> None:
        async with start(drain_s=3600.0) as worker:
            await worker.until(Connected)
            worker.stop.set()
            await worker.ended()

        assert coordinator.drains <= 1


class TestPulse:
    async def test_pulses_begin_with_the_link(self, coordinator: Coordinator, start: Start) -> None:
        coordinator.pulse_s = 0.2
        async with start() as worker:
            await worker.until(Connected)
            async with asyncio.timeout(5):
                await coordinator.pulsed.wait()

        assert coordinator.pulses[0]["running"] == 0

    async def test_a_link_the_coordinator_does_not_see_is_made_anew(
        self, coordinator: Coordinator, start: Start
    ) -> None:
        coordinator.pulse_s = 0.2
        coordinator.linked = False
        async with start() as worker:
            await worker.until(Connected, 2)

        assert coordinator.connections == 2
