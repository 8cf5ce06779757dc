"""A whole worker that serves a real container: registered with its card and price, run over the link, paid by the
run."""

import asyncio

import msgspec
import pytest

from comptoir.dialects.link.wire import RegisterBody
from comptoir.gateway import RegisteredOffer
from comptoir.hosts import check_offer
from comptoir.kinds import MILLION, Kinds
from comptoir.link import Cancel, ContainerCard, Frame, ModelOffer, Usage
from comptoir.worker import leases, register
from comptoir.worker.engines.container import ContainerEngine
from comptoir.worker.engines.container_wire import STOPPED
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.events import Connected, EngineReady, JobDone, JobFailed
from comptoir.worker.offering import Offering
from tests.worker.conftest import JoinWorker
from tests.worker.coordinator_stand_in import Coordinator, make_job
from tests.worker.engines.container_stand_in import RESOURCES, after, appends, says, serve_container, streams
from tests.worker.scripted_engine import ScriptedEngine
from tests.worker.test_run import Start, start  # noqa: F401 (a fixture)

CARD = ContainerCard("Loud.", "me/shout", False, True, ["10.0.0.0/8"], 60.0, 5, 10.0, {"0x0": "1"}, ["0xa"], ["0xb"])


def body(*containers: str, stream: bool = False) -> bytes:
    return msgspec.json.encode({"containers": containers or ("trivial",), "data": {}, "stream": stream})


async def engine_at(url: str, **options: object) -> ContainerEngine:
    """The coordinator stand-in's jobs are for ``trivial``."""
    engine = ContainerEngine(id="trivial", url=url, **options)  # type: ignore[arg-type]
    await engine.start()
    return engine


class TestRegistration:
    def test_the_card_comes_through_as_it_is(self) -> None:
        offer = ModelOffer("shout", ["container"], 10_000_000, 0, 10**15, container=CARD)

        sent = msgspec.json.encode(register.offer_json(offer))

        assert msgspec.json.decode(sent, type=RegisteredOffer).offer() == offer
        check_offer((offer,), 1, Kinds())

    def test_a_model_is_registered_as_before(self) -> None:
        assert "container" not in register.offer_json(ModelOffer("m", ["chat"]))

    @pytest.mark.parametrize(
        "card",
        [
            {"timeout_s": 0},
            {"timeout_s": 86_401},
            {"description": "x" * 2001},
            {"allowed_ips": ["10.0.0.0/8"] * 1001},
            {"accepted_payments": {"0x0": "-1"}},
            {"rate_requests": -1},
            {"external": "yes"},
        ],
    )
    def test_a_card_out_of_bounds_is_refused(self, card: dict[str, object]) -> None:
        offer = {"name": "a", "kinds": ["container"], "container": card}

        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"models": [offer], "public_key": "0" * 64}, RegisterBody)


class TestWorker:
    async def test_it_is_offered_by_the_run_and_told_of(self, coordinator: Coordinator, start: Start) -> None:  # noqa: F811
        async with serve_container(appends("one")) as container:
            spec = EngineSpec("container", {"id": "shout", "url": container.url, "timeout_s": 60})
            of_shout = {"shout": {"run": 2_000 * MILLION}}
            async with start(engines=[spec], model_prices=of_shout, prices={"run": 5}, measure=True) as worker:
                ready = await worker.until(EngineReady)
                await worker.until(Connected)
                async with asyncio.timeout(5):
                    while not coordinator.resources:
                        await asyncio.sleep(0.001)
                attempt = await coordinator.push(make_job(1, kind="container", model="shout", body=body("shout")))
                done = await worker.until(JobDone)

        assert (ready.models, ready.run_prices_uusd) == (["shout"], {"shout": 2_000})
        assert coordinator.registrations[0]["models"] == [
            {
                "name": "shout",
                "kinds": ["container"],
                "context_tokens": 10_000_000,
                "price_in_uusd_per_mtok": 0,
                "price_out_uusd_per_mtok": 2_000_000_000,
                "can_continue": False,
                "fingerprint": "",
                "prices": {"run": 2_000_000_000},
                "container": msgspec.structs.asdict(ContainerCard(timeout_s=60.0)),
            }
        ]
        assert coordinator.hellos[0].models[0].container == ContainerCard(timeout_s=60.0)
        assert coordinator.resources == [{"shout": RESOURCES}]
        assert attempt.frames == [Frame('{"said": ["one"]}', 1, STOPPED)]
        assert done.kind == "container"
        assert coordinator.violations == []
        # It was run once: for the buyer, not to be measured.
        assert len(container.runs) == 1

    async def test_one_that_goes_away_is_withdrawn_and_comes_back(self) -> None:
        async with serve_container() as container:
            port = int(container.url.rpartition(":")[2])
            offering = Offering(
                kinds=Kinds(), prices={"run": 7 * MILLION}, model_prices={}, on_event=lambda event: None
            )
            await offering.start([ContainerEngine(id="a", url=container.url)], measured=True)
            seen = [[offer.price_out_uusd_per_mtok for offer in offering.models]]
        assert await offering.refresh()
        seen.append([offer.price_out_uusd_per_mtok for offer in offering.models])
        async with serve_container(port=port):
            assert await offering.refresh()
            seen.append([offer.price_out_uusd_per_mtok for offer in offering.models])
        await offering.close()

        assert seen == [[7_000_000], [], [7_000_000]]


class TestLoop:
    async def test_a_later_step_is_paid_as_one_run(self, coordinator: Coordinator, join: JoinWorker) -> None:
        """*max_tokens* is the number of containers, of which those before have used their part."""
        async with serve_container(appends("two")) as container:
            engine = await engine_at(container.url)
            before = Frame('{"said": ["one"]}', 1, STOPPED)
            async with join(engine):
                job = make_job(
                    1, kind="container", body=body("first", "trivial"), start_seq=1, prefix=[before], max_tokens=2
                )
                attempt = await coordinator.push(job)
                await attempt.closed.wait()
            await engine.close()

        assert coordinator.violations == []
        assert attempt.frames == [Frame('{"said": ["one", "two"]}', 1, STOPPED)]
        assert attempt.done is not None and attempt.done.usage == Usage(0, 1)
        assert attempt.done.finish_reason == "stop"

    async def test_a_stream_is_not_cut_by_the_bound_of_runs(self, coordinator: Coordinator, join: JoinWorker) -> None:
        async with serve_container(streams(b"one ", b"\xff", b"two")) as container:
            engine = await engine_at(container.url)
            async with join(engine):
                attempt = await coordinator.push(make_job(1, kind="container", body=body(stream=True), max_tokens=1))
                await attempt.closed.wait()
            await engine.close()

        assert coordinator.violations == []
        assert attempt.done is not None and attempt.done.finish_reason == "stop"
        assert attempt.text == "one two" and attempt.frames[-1] == Frame("", 0, STOPPED)
        assert sum(frame.tokens for frame in attempt.frames) == 1

    async def test_a_failure_is_told_with_its_body(self, coordinator: Coordinator, join: JoinWorker) -> None:
        async with serve_container(says(b'{"error":"boom"}', status=500)) as container:
            engine = await engine_at(container.url)
            async with join(engine) as half:
                attempt = await coordinator.push(make_job(1, kind="container", body=body(), max_tokens=1))
                await attempt.closed.wait()
            await engine.close()

        fail = attempt.fail
        assert fail is not None
        assert (fail.code, fail.fault, fail.status, fail.body) == ("container_failed", "host", 500, b'{"error":"boom"}')
        assert half.of(JobFailed)[0].message == '{"error":"boom"}'

    async def test_a_deadline_hangs_up_on_the_container(self, coordinator: Coordinator, join: JoinWorker) -> None:
        async with serve_container(after(asyncio.Event())) as container:
            engine = await engine_at(container.url)
            async with join(engine):
                attempt = await coordinator.push(make_job(1, kind="container", body=body(), left_ms=500))
                async with asyncio.timeout(5):
                    await attempt.closed.wait()
                    await (await container.came()).ended.wait()
            await engine.close()

        assert attempt.fail is not None and attempt.fail.code == "deadline"

    async def test_a_cancelled_job_hangs_up_on_the_container(self, coordinator: Coordinator, join: JoinWorker) -> None:
        async with serve_container(after(asyncio.Event())) as container:
            engine = await engine_at(container.url, concurrency=1)
            async with join(engine):
                attempt = await coordinator.push(make_job(1, kind="container", body=body()))
                run = await container.came()
                await coordinator.send(Cancel(attempt.job.lease, "buyer left"))
                async with asyncio.timeout(5):
                    await run.ended.wait()
                    await attempt.closed.wait()
            await engine.close()

        assert attempt.done is not None and attempt.done.finish_reason == "cancelled"

    async def test_an_output_that_no_message_carries_fails(
        self, coordinator: Coordinator, join: JoinWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leases, "FRAME_BYTES_MAX", 100)
        async with join(ScriptedEngine(Frame("x" * 100))):
            attempt = await coordinator.push(make_job(1, kind="container", body=body()))
            await attempt.closed.wait()

        assert attempt.fail is not None and attempt.fail.code == "frame_too_big"
