"""The link survives everything: cuts at every boundary, back-pressure, strange coordinators."""

import asyncio
import operator
from functools import partial

import pytest
from bench.trivial_engine import TrivialEngine

from comptoir.link import Bye, Frame, ModelOffer, Usage
from comptoir.worker import leases
from comptoir.worker.engines.base import EngineError, Finish
from comptoir.worker.errors import KeyRefused, LinkRefused
from comptoir.worker.events import Connected, JobDone, JobFailed, Reconnecting
from comptoir.worker.uplink import BUSY_MESSAGES, BUSY_WINDOW_S, _Gathering
from tests.worker.conftest import JoinWorker
from tests.worker.coordinator_stand_in import Coordinator, make_job
from tests.worker.scripted_engine import ScriptedEngine, answer

TEXTS = [f"word{number} " for number in range(40)]


async def settled(coordinator: Coordinator, *, within_s: float = 10.0) -> None:
    """Wait until every attempt is closed."""
    async with asyncio.timeout(within_s):
        for attempt in coordinator.attempts.values():
            await attempt.closed.wait()


class TestAnswer:
    async def test_frames_chain_and_signature_arrive_whole(self, coordinator: Coordinator, join: JoinWorker) -> None:
        async with join(ScriptedEngine(*answer(*TEXTS))) as half:
            attempt = await coordinator.push(make_job(1, body=b'{"messages":[]}'))
            await settled(coordinator)
            async with asyncio.timeout(5):
                await half.table.empty()

        assert coordinator.violations == []
        assert attempt.text == "".join(TEXTS)
        assert attempt.done is not None and attempt.done.finish_reason == "stop"
        assert attempt.done.usage == Usage(3, 40)
        assert [event.earned_uusd for event in half.of(JobDone)] == [7]

    async def test_a_later_segment_goes_on_from_its_start(self, coordinator: Coordinator, join: JoinWorker) -> None:
        before = [Frame("Hello "), Frame("wor")]
        engine = ScriptedEngine(*answer("ld", "!"))
        async with join(engine):
            attempt = await coordinator.push(make_job(1, start_seq=2, prefix=before))
            await settled(coordinator)

        assert coordinator.violations == []
        assert attempt.done is not None and attempt.done.end_seq == 4
        assert engine.requests[0].prefix == tuple(before)

    async def test_many_jobs_share_one_socket_in_few_messages(self, coordinator: Coordinator, join: JoinWorker) -> None:
        async with join(TrivialEngine(tokens=500), slots=64):
            for number in range(64):
                await coordinator.push(make_job(number))
            await settled(coordinator)

        assert coordinator.violations == []
        assert [len(attempt.frames) for attempt in coordinator.attempts.values()] == [500] * 64
        # 32,000 frames: coalescing per turn of the event loop keeps messages far below one per frame.
        assert coordinator.messages < 32_000 / 20


class TestResume:
    @pytest.mark.parametrize("jobs", [1, 5])
    async def test_cut_at_every_boundary_loses_and_doubles_nothing(
        self, coordinator: Coordinator, join: JoinWorker, jobs: int
    ) -> None:
        """The line is cut at boundary 1, then 2, then 3… of all messages, with *jobs* jobs in the air."""
        cut_at = 0
        number = 0
        coordinator.window_frames = 4
        async with join(TrivialEngine(tokens=12)) as half:
            while True:
                cut_at += 1
                coordinator.boundary = 0
                coordinator.cut_here = partial(operator.eq, cut_at)
                attempts = []
                for _ in range(jobs):
                    number += 1
                    attempts.append(coordinator.submit(make_job(number)))
                for attempt in attempts:
                    if coordinator.connected.is_set() and not attempt.sent:
                        await coordinator.push(attempt.job)
                await settled(coordinator)
                async with asyncio.timeout(5):
                    await half.table.empty()
                assert coordinator.violations == []
                assert {len(one.frames) for one in coordinator.attempts.values()} == {12}
                if coordinator.boundary < cut_at:
                    break

        assert cut_at > 5
        assert coordinator.connections >= cut_at - 1

    async def test_every_connection_is_cut_and_the_answer_still_arrives(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        """No connection lives longer than five boundaries; the worker makes its way through all the same."""
        coordinator.window_frames = 16
        start = {"at": 0}

        def every_fifth(boundary: int) -> bool:
            if boundary - start["at"] >= 5:
                start["at"] = boundary
                return True
            return False

        coordinator.cut_here = every_fifth
        coordinator.submit(make_job(1))
        async with join(TrivialEngine(tokens=300), wait=False):
            await settled(coordinator)

        assert coordinator.violations == []
        assert coordinator.attempts[make_job(1).lease].text == " tok" * 300
        assert coordinator.connections > 10

    async def test_a_job_delivered_twice_runs_once(self, coordinator: Coordinator, join: JoinWorker) -> None:
        gate = asyncio.Event()
        engine = ScriptedEngine(Frame("a"), gate, *answer("b"))
        async with join(engine) as half:
            attempt = await coordinator.push(make_job(1))
            await coordinator.send(attempt.job, attempt.job)
            gate.set()
            await settled(coordinator)
            async with asyncio.timeout(5):
                await half.table.empty()
            await coordinator.send(attempt.job)
            await coordinator.push(make_job(2))
            await settled(coordinator)

        assert [request.body for request in engine.requests] == [b"{}", b"{}"]
        assert coordinator.violations == []

    async def test_an_unknown_lease_is_dropped_and_its_engine_stopped(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        engine = ScriptedEngine(Frame("a"), asyncio.Event())
        async with join(engine) as half:
            attempt = await coordinator.push(make_job(1))
            async with asyncio.timeout(5):
                await attempt.grew.wait()
                attempt.forgotten = True
                coordinator.cut()
                await engine.ended.wait()
                await half.table.empty()

            assert half.of(JobFailed)[0].code == "lease_lost"
            assert half.table.running == 0

    async def test_frames_that_were_acknowledged_and_lost_fail_the_lease(
        self, coordinator: Coordinator, join: JoinWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A coordinator that goes back behind what is still kept can't be served: nobody has those frames."""
        monkeypatch.setattr(leases, "KEPT_BYTES_MAX", 0)
        engine = ScriptedEngine(Frame("a"), Frame("b"), asyncio.Event())
        async with join(engine):
            attempt = await coordinator.push(make_job(1))
            async with asyncio.timeout(5):
                while attempt.next_seq < 2:
                    attempt.grew.clear()
                    await attempt.grew.wait()
                # The acknowledgement went out with this very message; an answered ping proves that it was read.
                await coordinator.send(make_job(2, model="nobody's"))
                other = coordinator.submit(make_job(2))
                await other.closed.wait()
                attempt.frames.clear()
                coordinator.cut()
                await attempt.closed.wait()

        assert attempt.fail is not None
        assert (attempt.fail.code, attempt.fail.fault) == ("frames_gone", "coordinator")

    async def test_a_coordinator_that_lost_everything_gets_the_other_hosts_frames_too(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        before = [Frame("Hello "), Frame("wor")]
        gate = asyncio.Event()
        engine = ScriptedEngine(Frame("ld"), gate, *answer("!"))
        async with join(engine):
            attempt = await coordinator.push(make_job(1, start_seq=2, prefix=before))
            async with asyncio.timeout(5):
                await attempt.grew.wait()
            attempt.lose_everything()
            coordinator.cut()
            gate.set()
            await settled(coordinator)

        # The stand-in checks the hash over all frames, and the signature over the last segment alone.
        assert coordinator.violations == []
        assert attempt.text == "Hello world!"
        assert attempt.done is not None and attempt.done.end_seq == 4

    async def test_done_is_repeated_until_settled(self, coordinator: Coordinator, join: JoinWorker) -> None:
        coordinator.settles = False
        async with join(ScriptedEngine(*answer("a"))) as half:
            attempt = await coordinator.push(make_job(1))
            await settled(coordinator)
            first, attempt.done = attempt.done, None
            attempt.closed.clear()
            coordinator.settles = True
            coordinator.cut()
            await settled(coordinator)
            async with asyncio.timeout(5):
                await half.table.empty()

        assert attempt.done == first
        assert half.of(Connected)[1].resumed == 1


class TestBackPressure:
    async def test_the_engine_waits_at_the_window(self, coordinator: Coordinator, join: JoinWorker) -> None:
        coordinator.window_frames = 10
        coordinator.acks = False
        engine = ScriptedEngine(*answer(*TEXTS))
        async with join(engine) as half:
            attempt = await coordinator.push(make_job(1))
            async with asyncio.timeout(5):
                while attempt.next_seq < 10:
                    attempt.grew.clear()
                    await attempt.grew.wait()
            for _ in range(50):
                await asyncio.sleep(0)

            assert engine.given == 10
            held = half.table.get(attempt.job.lease)
            assert held is not None and len(held.frames) == 10

            coordinator.acks = True
            coordinator.cut()
            await settled(coordinator)

        assert coordinator.violations == []
        assert attempt.text == "".join(TEXTS)

    async def test_the_window_holds_while_there_is_no_connection(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        coordinator.window_frames = 10
        gate = asyncio.Event()
        engine = ScriptedEngine(gate, *answer(*TEXTS))
        async with join(engine) as half:
            attempt = await coordinator.push(make_job(1))
            async with asyncio.timeout(5):
                while not engine.requests:
                    await asyncio.sleep(0)
                coordinator.handshake_status = 503
                coordinator.cut()
                while not half.of(Reconnecting):
                    await asyncio.sleep(0)
                gate.set()
                for _ in range(200):
                    await asyncio.sleep(0)
            assert engine.given == 10

            coordinator.handshake_status = 0
            await settled(coordinator)

        assert attempt.text == "".join(TEXTS)

    async def test_large_frames_count_by_their_bytes(self, coordinator: Coordinator, join: JoinWorker) -> None:
        """Eight MiB unacknowledged stop the engine, however few frames they are."""
        coordinator.acks = False
        big = "x" * (3 * 1024 * 1024)
        engine = ScriptedEngine(*answer(*[big] * 10))
        async with join(engine):
            attempt = await coordinator.push(make_job(1))
            async with asyncio.timeout(10):
                while attempt.next_seq < 3:
                    attempt.grew.clear()
                    await attempt.grew.wait()
            for _ in range(50):
                await asyncio.sleep(0)

        assert engine.given == 3


class TestFailure:
    async def test_an_engine_error_is_passed_on_with_its_facts(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        error = EngineError("engine_busy", "full", fault="capacity", status=429, body=b'{"a":1}', retry_after_s=7.0)
        async with join(ScriptedEngine(Frame("a"), error)) as half:
            attempt = await coordinator.push(make_job(1))
            await settled(coordinator)

        fail = attempt.fail
        assert fail is not None
        assert (fail.code, fail.fault, fail.status, fail.body, fail.retry_after_s) == (
            "engine_busy",
            "capacity",
            429,
            b'{"a":1}',
            7.0,
        )
        assert attempt.text == "a"
        assert half.of(JobFailed)[0].fault == "capacity"

    async def test_an_engines_bug_is_the_hosts_fault_and_logged(
        self, coordinator: Coordinator, join: JoinWorker, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with join(ScriptedEngine(Frame("a"), ZeroDivisionError("oops"))):
            attempt = await coordinator.push(make_job(1))
            await settled(coordinator)

        assert attempt.fail is not None and attempt.fail.fault == "host"
        assert "ZeroDivisionError" in caplog.text and "Traceback" in caplog.text

    @pytest.mark.parametrize("frame", [Frame("b", -1), Frame("\ud83d")], ids=["a negative count", "half a character"])
    async def test_a_frame_that_can_not_be_said_costs_its_job_alone(
        self, coordinator: Coordinator, join: JoinWorker, frame: Frame
    ) -> None:
        async with join(ScriptedEngine(Frame("a"), frame, *answer("c"))):
            attempt = await coordinator.push(make_job(1))
            await settled(coordinator)

        assert attempt.fail is not None
        assert (attempt.fail.code, attempt.fail.fault, attempt.text) == ("engine_bug", "host", "a")
        assert (coordinator.connections, coordinator.violations) == (1, [])

    @pytest.mark.parametrize("usage", [Usage(-1, 1), Usage(1, -1), Usage(1 << 31, 1), Usage(1, 1, b" " * 65_537)])
    async def test_an_end_whose_counts_no_message_can_say_fails(
        self, coordinator: Coordinator, join: JoinWorker, usage: Usage
    ) -> None:
        async with join(ScriptedEngine(Frame("a"), Finish("stop", usage))):
            attempt = await coordinator.push(make_job(1))
            await settled(coordinator)

        assert attempt.fail is not None and attempt.fail.code == "engine_protocol"

    async def test_an_engine_that_ends_without_finish_fails(self, coordinator: Coordinator, join: JoinWorker) -> None:
        async with join(ScriptedEngine(Frame("a"))):
            attempt = await coordinator.push(make_job(1))
            await settled(coordinator)

        assert attempt.fail is not None and attempt.fail.code == "engine_protocol"

    async def test_a_key_that_is_refused_ends_the_worker(self, coordinator: Coordinator, join: JoinWorker) -> None:
        async with join(TrivialEngine(), key="hk_live_wrong", wait=False) as half:
            with pytest.raises(KeyRefused, match="delete the state file"):
                await asyncio.wait_for(half.link, 5)

    @pytest.mark.parametrize("status", [404, 426])
    async def test_a_coordinator_that_saw_no_request_for_a_websocket(
        self, coordinator: Coordinator, join: JoinWorker, status: int
    ) -> None:
        """Older coordinators say nothing but 404: the worker has words of its own."""
        coordinator.handshake_status = status
        async with join(TrivialEngine(), wait=False) as half:
            async with asyncio.timeout(5):
                while not half.of(Reconnecting):
                    await asyncio.sleep(0.001)
            (why, *_) = [event.why for event in half.of(Reconnecting)]

        assert f"answered HTTP {status}: there is no coordinator, or the request for a WebSocket" in why
        assert "proxy_set_header Upgrade $http_upgrade" in why

    async def test_goodbye_for_good_ends_the_worker(self, coordinator: Coordinator, join: JoinWorker) -> None:
        coordinator.bye = Bye("too old", -1.0)
        async with join(TrivialEngine(), wait=False) as half:
            with pytest.raises(LinkRefused, match="too old"):
                await asyncio.wait_for(half.link, 5)

    async def test_goodbye_for_a_while_comes_back(self, coordinator: Coordinator, join: JoinWorker) -> None:
        coordinator.bye = Bye("restarting", 0.01)
        async with join(TrivialEngine(tokens=2), wait=False) as half:
            async with asyncio.timeout(5):
                while not half.of(Reconnecting):
                    await asyncio.sleep(0)
                coordinator.bye = None
                while coordinator.connections < 2:
                    await asyncio.sleep(0.001)
                await coordinator.connected.wait()
                await coordinator.push(make_job(1))
                await settled(coordinator)

        assert half.of(Reconnecting)[0].in_s == 0.01

    async def test_a_server_that_is_away_is_tried_again(self, coordinator: Coordinator, join: JoinWorker) -> None:
        coordinator.handshake_status = 502
        async with join(TrivialEngine(), wait=False) as half:
            async with asyncio.timeout(5):
                while len(half.of(Reconnecting)) < 3:
                    await asyncio.sleep(0)
                coordinator.handshake_status = 0
                await coordinator.connected.wait()

        assert "502" in half.of(Reconnecting)[0].why


class TestOffer:
    async def test_a_changed_offer_is_said_on_the_live_link(self, coordinator: Coordinator, join: JoinWorker) -> None:
        async with join(TrivialEngine()) as half:
            half.uplink.offer([ModelOffer(name="other", kinds=["chat"])], 2)
            async with asyncio.timeout(5):
                while not coordinator.offers:
                    await asyncio.sleep(0)

        assert [model.name for model in coordinator.offers[0]] == ["other"]
        assert coordinator.hellos[0].models[0].name == "trivial"

    async def test_drain_is_repeated_after_a_reconnect(self, coordinator: Coordinator, join: JoinWorker) -> None:
        async with join(TrivialEngine()) as half:
            half.uplink.drain()
            async with asyncio.timeout(5):
                while coordinator.drains < 1:
                    await asyncio.sleep(0)
                coordinator.cut()
                while coordinator.drains < 2:
                    await asyncio.sleep(0)

        assert coordinator.drains == 2


class TestCut:
    async def test_a_link_the_coordinator_lost_is_made_anew(self, coordinator: Coordinator, join: JoinWorker) -> None:
        gate = asyncio.Event()
        async with join(ScriptedEngine(Frame("a"), gate, Finish("stop", Usage(1, 1)))) as half:
            await coordinator.push(make_job(1))
            half.uplink.cut(alive_s=3600.0)
            assert half.uplink.connected
            half.uplink.cut(alive_s=0.0)
            async with asyncio.timeout(5):
                while coordinator.connections < 2:
                    await asyncio.sleep(0.001)
            gate.set()
            await settled(coordinator)

        assert coordinator.violations == []


class TestGathering:
    def test_a_quiet_link_is_never_held_up(self) -> None:
        now = 0.0
        gathering = _Gathering(lambda: now)
        waits = []
        for _ in range(50):
            waits.append(gathering.must_wait())
            now += BUSY_WINDOW_S / (BUSY_MESSAGES - 1)

        assert not any(waits)

    def test_a_busy_one_waits_for_company_from_the_next_window_on(self) -> None:
        now = 0.0
        gathering = _Gathering(lambda: now)
        waits = []
        for _ in range(40):
            waits.append(gathering.must_wait())
            now += BUSY_WINDOW_S / 20

        assert waits == [False] * 20 + [True] * 20

    def test_after_a_pause_it_is_quiet_again(self) -> None:
        now = 0.0
        gathering = _Gathering(lambda: now)
        for _ in range(30):
            gathering.must_wait()
        now += 10 * BUSY_WINDOW_S

        assert not gathering.must_wait()
