"""The job loop's refusals and endings: slots, deadlines, cancellation, draining."""

import asyncio

import msgspec
import pytest
from bench.trivial_engine import TrivialEngine

from comptoir.kit.clock import FakeClock
from comptoir.link import Frame, Settled, Usage
from comptoir.worker.engines.base import Finish
from comptoir.worker.events import JobDone, JobFailed, JobStarted
from tests.at_once import at_once
from tests.worker.conftest import JoinWorker
from tests.worker.coordinator_stand_in import Attempt, Coordinator, make_job
from tests.worker.scripted_engine import ScriptedEngine, answer
from tests.worker.test_uplink import settled


async def first_frame(attempt: Attempt) -> None:
    async with asyncio.timeout(5):
        await attempt.grew.wait()


class TestFinish:
    async def test_an_engine_that_ends_as_if_we_had_stopped_it_has_failed(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        """The coordinator gave the job to the next host, and that to the next, without end."""
        async with join(ScriptedEngine(*answer("a", reason="cancelled"))):
            attempt = await coordinator.push(make_job(1))
            await settled(coordinator)

        assert attempt.fail is not None
        assert (attempt.fail.code, attempt.fail.fault) == ("engine_protocol", "host")


class TestAccept:
    async def test_more_jobs_than_slots_are_sent_back_as_busy(self, coordinator: Coordinator, join: JoinWorker) -> None:
        gate = asyncio.Event()
        async with join(ScriptedEngine(Frame("a"), gate, *answer("b")), slots=1):
            first = await coordinator.push(make_job(1))
            await first_frame(first)
            second = await coordinator.push(make_job(2))
            async with asyncio.timeout(5):
                await second.closed.wait()
            gate.set()
            await settled(coordinator)

        assert second.fail is not None
        assert (second.fail.code, second.fail.fault) == ("slots_full", "capacity")
        assert first.text == "ab"

    async def test_a_model_nobody_serves_is_the_hosts_fault(self, coordinator: Coordinator, join: JoinWorker) -> None:
        async with join(TrivialEngine()):
            attempt = await coordinator.push(make_job(1, model="other"))
            await settled(coordinator)

        assert attempt.fail is not None
        assert (attempt.fail.code, attempt.fail.fault) == ("model_not_served", "host")

    async def test_a_job_past_its_deadline_is_not_started(self, coordinator: Coordinator, join: JoinWorker) -> None:
        clock = FakeClock(now_ms=1_000_000)
        async with join(TrivialEngine(), clock=clock) as half:
            attempt = await coordinator.push(make_job(1, deadline_ms=999_999))
            await settled(coordinator)

        assert attempt.fail is not None
        assert (attempt.fail.code, attempt.fail.fault) == ("deadline", "coordinator")
        assert half.of(JobStarted) == []

    async def test_a_clock_hours_from_the_coordinators_fails_no_job(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        async with join(TrivialEngine(tokens=3), clock=FakeClock(now_ms=20_000_000)):
            attempt = await coordinator.push(make_job(1, deadline_ms=1_000_000, left_ms=60_000))
            await settled(coordinator)

        assert attempt.fail is None and attempt.done is not None

    @pytest.mark.parametrize(
        ("prefix", "chain"),
        [([], b""), ([Frame("a"), Frame("b")], b""), ([Frame("a")], b"\1" * 32)],
        ids=["none came", "too many came", "their hash is another's"],
    )
    async def test_a_job_whose_prefix_is_not_its_own_is_not_started(
        self, coordinator: Coordinator, join: JoinWorker, prefix: list[Frame], chain: bytes
    ) -> None:
        job = msgspec.structs.replace(make_job(1, start_seq=1, prefix=prefix), chain=chain)
        async with join(TrivialEngine()) as half:
            attempt = await coordinator.push(job)
            await settled(coordinator)

        assert attempt.fail is not None
        assert (attempt.fail.code, attempt.fail.fault) == ("prefix_mismatch", "coordinator")
        assert half.of(JobStarted) == []

    async def test_an_engine_that_misses_the_deadline_is_stopped(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        clock = FakeClock(now_ms=1_000_000)
        engine = ScriptedEngine(Frame("a"), asyncio.Event())
        async with join(engine, clock=clock):
            attempt = await coordinator.push(make_job(1, deadline_ms=1_000_050))
            await settled(coordinator)
            async with asyncio.timeout(5):
                await engine.ended.wait()

        assert attempt.fail is not None
        assert (attempt.fail.code, attempt.fail.fault, attempt.text) == ("deadline", "host", "a")


class TestCancel:
    async def test_the_engine_is_closed_at_once_and_what_was_sent_is_signed(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        engine = ScriptedEngine(Frame("a"), Frame("b"), asyncio.Event())
        async with join(engine, slots=1) as half:
            attempt = await coordinator.push(make_job(1))
            async with asyncio.timeout(5):
                while attempt.next_seq < 2:
                    attempt.grew.clear()
                    await attempt.grew.wait()
            await coordinator.cancel(attempt)
            async with at_once():
                await engine.ended.wait()
            await settled(coordinator)

            assert half.table.running == 0
        assert coordinator.violations == []
        assert attempt.done is not None
        assert (attempt.done.finish_reason, attempt.done.end_seq, attempt.done.usage) == ("cancelled", 2, Usage(0, 2))

    async def test_a_full_window_does_not_hold_it_up(self, coordinator: Coordinator, join: JoinWorker) -> None:
        coordinator.window_frames = 2
        coordinator.acks = False
        engine = ScriptedEngine(*answer("a", "b", "c"))
        async with join(engine):
            attempt = await coordinator.push(make_job(1))
            async with asyncio.timeout(5):
                while attempt.next_seq < 2:
                    attempt.grew.clear()
                    await attempt.grew.wait()
            await coordinator.cancel(attempt)
            async with at_once():
                await engine.ended.wait()

        assert engine.given == 2

    async def test_its_slot_is_free_for_the_next_message(self, coordinator: Coordinator, join: JoinWorker) -> None:
        engine = ScriptedEngine(Frame("a"), asyncio.Event())
        async with join(engine, slots=1):
            first = await coordinator.push(make_job(1))
            await first_frame(first)
            await coordinator.cancel(first)
            second = await coordinator.push(make_job(2))
            await first_frame(second)

        assert second.text == "a"

    async def test_one_for_an_unknown_lease_is_ignored(self, coordinator: Coordinator, join: JoinWorker) -> None:
        async with join(TrivialEngine(tokens=2)):
            await coordinator.cancel(Attempt(make_job(9)))
            attempt = await coordinator.push(make_job(1))
            await settled(coordinator)

        assert attempt.text == " tok tok"


class TestSettled:
    async def test_earnings_that_follow_a_lost_lease_are_still_said(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        """A cancelled lease may be disowned first (its Done finds nobody) and paid for a moment later."""
        coordinator.settles = False
        async with join(ScriptedEngine(Frame("a"), asyncio.Event())) as half:
            attempt = await coordinator.push(make_job(1))
            await first_frame(attempt)
            lease = attempt.job.lease
            await coordinator.cancel(attempt)
            await coordinator.send(Settled(lease, "", "lost", 0, 0, 0), Settled(lease, "job_1", "failed", 5, 1, 50))
            async with asyncio.timeout(5):
                await half.table.empty()

        assert half.of(JobDone) == [JobDone("job_1", "failed", 5, 1, 50)]

    async def test_a_lease_that_was_given_away_stops_its_engine_and_says_so(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        """As after a long pause of this process: what it had is another host's now."""
        engine = ScriptedEngine(Frame("a"), asyncio.Event())
        async with join(engine) as half:
            attempt = await coordinator.push(make_job(1))
            await first_frame(attempt)
            attempt.forgotten = True
            await coordinator.send(Settled(attempt.job.lease, "", "lost", 0, 0, 0))
            async with asyncio.timeout(5):
                await engine.ended.wait()
                await half.table.empty()

        assert [event.code for event in half.of(JobFailed)] == ["lease_lost"]
        assert half.of(JobDone) == []


class TestFairness:
    async def test_an_engine_that_never_waits_does_not_starve_the_others(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        """The second job ends long before the first, although the first one's engine never gives up its turn."""
        async with join(TrivialEngine()):
            long = await coordinator.push(make_job(1, body=b'{"max_tokens":100000}'))
            await first_frame(long)
            short = await coordinator.push(make_job(2, body=b'{"max_tokens":3}'))
            async with asyncio.timeout(5):
                await short.closed.wait()

            assert not long.closed.is_set()


class TestTokens:
    async def test_the_statement_counts_what_the_frames_count(self, coordinator: Coordinator, join: JoinWorker) -> None:
        """The engine's own count travels beside it, unchanged."""
        async with join(ScriptedEngine(Frame("", 0, b'{"data":[]}'), Finish("stop", Usage(9, 4)))):
            attempt = await coordinator.push(make_job(1))
            await settled(coordinator)

        # The stand-in verifies the signature over a statement of no completion tokens, as the frame has none.
        assert coordinator.violations == []
        assert attempt.done is not None and attempt.done.usage == Usage(9, 4)

    async def test_an_engine_that_counted_fewer_than_its_frames_is_billed_by_its_count(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        counted = Usage(9, 1, b'{"completion_tokens":1}')
        async with join(ScriptedEngine(Frame("a"), Frame("b"), Finish("stop", counted))):
            attempt = await coordinator.push(make_job(1))
            await settled(coordinator)

        # The stand-in verifies the signature over a statement of one completion token.
        assert coordinator.violations == []
        assert attempt.done is not None and attempt.done.usage == counted


class TestMaxTokens:
    async def test_an_engine_that_goes_on_is_cut_off_with_length(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        engine = ScriptedEngine(*answer("a", "b", "c", "d"))
        async with join(engine):
            attempt = await coordinator.push(make_job(1, max_tokens=2))
            await settled(coordinator)

        assert coordinator.violations == []
        assert (attempt.text, attempt.done and attempt.done.finish_reason) == ("ab", "length")
        assert engine.closed_streams == 1

    async def test_an_engine_that_ends_at_the_bound_says_itself_how(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        async with join(ScriptedEngine(*answer("a", "b", reason="tool_calls"))):
            attempt = await coordinator.push(make_job(1, max_tokens=2))
            await settled(coordinator)

        assert attempt.done is not None
        assert (attempt.text, attempt.done.finish_reason, attempt.done.usage.prompt_tokens) == ("ab", "tool_calls", 3)

    async def test_what_stands_for_more_tokens_than_are_left_counts_for_those(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        """A piece can't be split; the end token that many engines count is not worth an answer cut short."""
        steps = (Frame("a"), Frame("bcd", 3), Frame("", 1), Finish("stop", Usage(3, 5)))
        async with join(ScriptedEngine(*steps)):
            attempt = await coordinator.push(make_job(1, max_tokens=3))
            await settled(coordinator)

        assert attempt.frames == [Frame("a"), Frame("bcd", 2)]
        assert attempt.done is not None and attempt.done.finish_reason == "stop"

    async def test_a_job_that_goes_on_has_what_its_prefix_left(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        job = make_job(1, start_seq=1, prefix=[Frame("a")], max_tokens=2)
        async with join(ScriptedEngine(*answer("b", "c", "d"))):
            attempt = await coordinator.push(job)
            await settled(coordinator)

        assert attempt.done is not None
        assert (attempt.text, attempt.done.finish_reason) == ("b", "length")


async def says(attempt: Attempt, text: str) -> None:
    """Wait until *attempt* has come so far."""
    async with asyncio.timeout(5):
        while attempt.text != text:
            attempt.grew.clear()
            await attempt.grew.wait()


class TestOpenEnded:
    """The buyer named no bound: the coordinator raises the one that it holds credit for."""

    async def test_the_engine_is_waited_with_at_the_bound_until_it_is_raised(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        engine = ScriptedEngine(*answer("a", "b", "c", "d", "e"))
        async with join(engine):
            attempt = await coordinator.push(make_job(1, max_tokens=2, grows_to=100))
            await says(attempt, "ab")
            assert engine.given == 3  # One piece more was read to know that it goes on.

            await coordinator.raise_bound(attempt, 4)
            await says(attempt, "abcd")
            await coordinator.raise_bound(attempt, 6)
            await settled(coordinator)

        assert coordinator.violations == []
        assert (attempt.text, attempt.done and attempt.done.finish_reason) == ("abcde", "stop")

    async def test_an_answer_that_ends_at_the_bound_waits_for_nothing(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        async with join(ScriptedEngine(*answer("a", "b"))):
            attempt = await coordinator.push(make_job(1, max_tokens=2, grows_to=100))
            await settled(coordinator)

        assert (attempt.text, attempt.done and attempt.done.finish_reason) == ("ab", "stop")

    async def test_at_a_final_bound_it_ends_with_length(self, coordinator: Coordinator, join: JoinWorker) -> None:
        engine = ScriptedEngine(*answer("a", "b", "c", "d"))
        async with join(engine):
            attempt = await coordinator.push(make_job(1, max_tokens=2, grows_to=100))
            await says(attempt, "ab")
            await coordinator.raise_bound(attempt, 3, final=True)
            await settled(coordinator)

        assert coordinator.violations == []
        assert (attempt.text, attempt.done and attempt.done.finish_reason) == ("abc", "length")
        assert engine.closed_streams == 1

    async def test_what_it_may_grow_to_is_the_end_without_a_word(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        async with join(ScriptedEngine(*answer("a", "b", "c", "d"))):
            attempt = await coordinator.push(make_job(1, max_tokens=2, grows_to=3))
            await says(attempt, "ab")
            await coordinator.raise_bound(attempt, 3)
            await settled(coordinator)

        assert (attempt.text, attempt.done and attempt.done.finish_reason) == ("abc", "length")

    async def test_the_engine_is_told_that_nobody_bounds_it(self, coordinator: Coordinator, join: JoinWorker) -> None:
        engine = ScriptedEngine(*answer("c"))
        async with join(engine):
            await coordinator.push(make_job(1, start_seq=1, prefix=[Frame("ab", 2)], max_tokens=8, grows_to=100))
            await coordinator.push(make_job(2, max_tokens=8))
            await settled(coordinator)

        told = [(request.max_tokens, request.open_ended) for request in engine.requests]
        assert told == [(100, True), (8, False)]

    async def test_a_job_that_goes_on_has_what_its_prefix_left(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        job = make_job(1, start_seq=1, prefix=[Frame("a")], max_tokens=2, grows_to=100)
        async with join(ScriptedEngine(*answer("b", "c", "d"))):
            attempt = await coordinator.push(job)
            await says(attempt, "b")
            await coordinator.raise_bound(attempt, 3, final=True)
            await settled(coordinator)

        assert (attempt.text, attempt.done and attempt.done.finish_reason) == ("bc", "length")

    async def test_one_whose_prefix_used_the_bound_up_waits_before_its_first_piece(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        job = make_job(1, start_seq=1, prefix=[Frame("ab", 2)], max_tokens=2, grows_to=100)
        async with join(ScriptedEngine(*answer("c"))):
            attempt = await coordinator.push(job)
            await coordinator.raise_bound(attempt, 4)
            await settled(coordinator)

        assert (attempt.text, attempt.done and attempt.done.finish_reason) == ("c", "stop")

    @pytest.mark.parametrize(
        "steps", [(Frame("abcde", 5),), (Frame("abc"), Frame("de", 4)), (Frame("abcde", 4), Frame("", 1))]
    )
    async def test_a_piece_larger_than_what_is_left_is_counted_whole_once_it_may_be(
        self, coordinator: Coordinator, join: JoinWorker, steps: tuple[Frame, ...]
    ) -> None:
        """As of an engine that does not stream: all of it is one piece, and paid."""
        async with join(ScriptedEngine(*steps, Finish("stop", Usage(3, 5)))):
            attempt = await coordinator.push(make_job(1, max_tokens=2, grows_to=100))
            await says(attempt, "abcde")
            assert sum(frame.tokens for frame in attempt.frames) == 2
            assert attempt.done is None

            await coordinator.raise_bound(attempt, 4)
            await coordinator.raise_bound(attempt, 8)
            await settled(coordinator)

        assert coordinator.violations == []
        assert sum(frame.tokens for frame in attempt.frames) == 5

    async def test_tokens_that_nobody_sees_use_up_nothing(self, coordinator: Coordinator, join: JoinWorker) -> None:
        hidden = [Frame("", 10) for _ in range(9)]
        async with join(ScriptedEngine(Frame("a"), *hidden, *answer("b"))):
            attempt = await coordinator.push(make_job(1, max_tokens=50, grows_to=100))
            await settled(coordinator)

        assert (attempt.text, attempt.done and attempt.done.finish_reason) == ("ab", "stop")
        assert sum(frame.tokens for frame in attempt.frames) == 34

    async def test_a_lost_link_says_the_bound_anew(self, coordinator: Coordinator, join: JoinWorker) -> None:
        """The raise itself may be what was lost."""
        async with join(ScriptedEngine(*answer("a", "b", "c"))):
            attempt = await coordinator.push(make_job(1, max_tokens=2, grows_to=100))
            await says(attempt, "ab")
            attempt.bound = 4
            coordinator.cut()
            await settled(coordinator)

        assert (attempt.text, attempt.done and attempt.done.finish_reason) == ("abc", "stop")

    async def test_a_coordinator_that_can_not_raise_it_is_not_waited_for(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        """An older one took the job over: it would take the waiting for silence."""
        async with join(ScriptedEngine(*answer("a", "b", "c"))):
            attempt = await coordinator.push(make_job(1, max_tokens=2, grows_to=100))
            await says(attempt, "ab")
            attempt.bound = 0
            coordinator.cut()
            await settled(coordinator)

        assert (attempt.text, attempt.done and attempt.done.finish_reason) == ("ab", "length")

    async def test_one_that_does_not_know_the_bound_yet_is_waited_for(
        self, coordinator: Coordinator, join: JoinWorker
    ) -> None:
        """Its database lost commits, or the end of the lease is being written and may still fail."""
        async with join(ScriptedEngine(*answer("a", "b", "c"))):
            attempt = await coordinator.push(make_job(1, max_tokens=2, grows_to=100))
            await says(attempt, "ab")
            attempt.bound = 1
            coordinator.connected.clear()
            coordinator.cut()
            async with asyncio.timeout(5):
                await coordinator.connected.wait()
            await coordinator.raise_bound(attempt, 4)
            await settled(coordinator)

        assert (attempt.text, attempt.done and attempt.done.finish_reason) == ("abc", "stop")

    async def test_one_that_waits_is_stopped_at_once(self, coordinator: Coordinator, join: JoinWorker) -> None:
        engine = ScriptedEngine(*answer("a", "b", "c"))
        async with join(engine):
            attempt = await coordinator.push(make_job(1, max_tokens=2, grows_to=100))
            await says(attempt, "ab")
            await coordinator.cancel(attempt)
            async with at_once():
                await engine.ended.wait()
            await settled(coordinator)

        assert attempt.done is not None and attempt.done.finish_reason == "cancelled"
