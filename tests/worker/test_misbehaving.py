"""The misbehaving workers break the rule that they are named after, and no other."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir.dispatch.submit import submit
from comptoir.link import Frame, Models
from tests.journeys.test_cut_link import order
from tests.post import open_post
from tests.worker.coordinator_stand_in import Attempt, Coordinator, make_job
from tests.worker.misbehaving import MODEL, Misdeed, ScriptedWorker, misbehaving, words

WHOLE = "".join(frame.text for frame in words())


async def over(attempt: Attempt, worker: ScriptedWorker) -> None:
    """Wait until the attempt or the connection has ended."""
    ends = [asyncio.create_task(attempt.closed.wait()), asyncio.create_task(worker.closed.wait())]
    try:
        async with asyncio.timeout(5):
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()


class TestScriptedWorker:
    @pytest.mark.parametrize("misdeed", [Misdeed.NONE, Misdeed.REPEAT, Misdeed.OTHERS_LEASE])
    async def test_what_the_link_allows_is_a_whole_signed_answer(
        self, coordinator: Coordinator, misdeed: Misdeed
    ) -> None:
        async with misbehaving(coordinator.url, misdeed):
            attempt = await coordinator.push(make_job(1))
            async with asyncio.timeout(5):
                await attempt.closed.wait()

        assert coordinator.violations == []
        assert attempt.text == WHOLE

    async def test_it_goes_on_from_another_hosts_frames(self, coordinator: Coordinator) -> None:
        async with misbehaving(coordinator.url):
            attempt = await coordinator.push(make_job(1, start_seq=5, prefix=words()[:5]))
            async with asyncio.timeout(5):
                await attempt.closed.wait()

        assert coordinator.violations == []
        assert attempt.frames == words()[5:]

    @pytest.mark.parametrize(
        ("misdeed", "violation"),
        [
            (Misdeed.GAP, "gap: frames from 4, expected 3"),
            (Misdeed.REORDER, "gap: frames from 4, expected 3"),
            (Misdeed.REPEAT_OTHER, "a repeated frame differs from the first one"),
            (Misdeed.WRONG_CHAIN, "the chain does not match the frames"),
            (Misdeed.WRONG_SIGNATURE, "the signature does not match the statement"),
            (Misdeed.WRONG_END, "Done.end_seq 4 but 3 frames are here"),
            (Misdeed.TEXT, "message of type 1"),
        ],
    )
    async def test_a_broken_rule_is_seen(self, coordinator: Coordinator, misdeed: Misdeed, violation: str) -> None:
        async with misbehaving(coordinator.url, misdeed) as worker:
            attempt = await coordinator.push(make_job(1))
            async with asyncio.timeout(5):
                await worker.misbehaved.wait()
                while not coordinator.violations:
                    await asyncio.sleep(0.001)

        assert coordinator.violations[0] == violation
        assert attempt.frames[:3] == words()[:3]

    @pytest.mark.parametrize(
        "misdeed",
        [
            Misdeed.NOT_MSGPACK,
            Misdeed.NOT_UTF8,
            Misdeed.NEGATIVE_TOKENS,
            Misdeed.BELOW_ZERO,
            Misdeed.TOO_MANY,
        ],
    )
    async def test_the_connection_ends(self, coordinator: Coordinator, misdeed: Misdeed) -> None:
        async with misbehaving(coordinator.url, misdeed) as worker:
            attempt = await coordinator.push(make_job(1))
            await over(attempt, worker)

            assert worker.closed.is_set()
        assert attempt.frames == words()[:3]

    async def test_a_dropped_connection_may_take_its_last_frames_along(self, coordinator: Coordinator) -> None:
        async with misbehaving(coordinator.url, Misdeed.DROP) as worker:
            attempt = await coordinator.push(make_job(1))
            await over(attempt, worker)

            assert worker.closed.is_set()
        assert attempt.frames == words()[: len(attempt.frames)] and len(attempt.frames) <= 3
        assert coordinator.violations == []

    async def test_a_count_that_nobody_can_pay_arrives(self, coordinator: Coordinator) -> None:
        async with misbehaving(coordinator.url, Misdeed.TOO_MANY_TOKENS):
            attempt = await coordinator.push(make_job(1))
            async with asyncio.timeout(5):
                while attempt.next_seq < 4:
                    attempt.grew.clear()
                    await attempt.grew.wait()

        assert attempt.frames == [*words()[:3], Frame("dear ", 1_000_000)]

    async def test_a_stalled_one_goes_on_when_it_is_let(self, coordinator: Coordinator) -> None:
        async with misbehaving(coordinator.url, Misdeed.STALL) as worker:
            attempt = await coordinator.push(make_job(1))
            async with asyncio.timeout(5):
                await worker.misbehaved.wait()
                assert attempt.next_seq <= 3
                worker.resume.set()
                await attempt.closed.wait()

        assert coordinator.violations == []
        assert attempt.text == WHOLE

    async def test_one_that_dropped_the_link_may_come_back(self, coordinator: Coordinator) -> None:
        """It names the lease it still plays, and loses it when the coordinator has given it away."""
        async with misbehaving(coordinator.url, Misdeed.STALL) as worker:
            attempt = await coordinator.push(make_job(1))
            async with asyncio.timeout(5):
                await worker.misbehaved.wait()
                while attempt.next_seq < 3:
                    attempt.grew.clear()
                    await attempt.grew.wait()
                worker.drop()
                await worker.closed.wait()
                await worker.link()
                worker.resume.set()
                await attempt.closed.wait()

        assert coordinator.hellos[1].open[0].lease == attempt.job.lease
        assert attempt.text == WHOLE

    @pytest.mark.parametrize("misdeed", [Misdeed.FAIL, Misdeed.CANNOT_CONTINUE])
    async def test_a_refusal_names_its_code(self, coordinator: Coordinator, misdeed: Misdeed) -> None:
        async with misbehaving(coordinator.url, misdeed):
            attempt = await coordinator.push(make_job(1, start_seq=2, prefix=words()[:2]))
            async with asyncio.timeout(5):
                await attempt.closed.wait()

        assert attempt.fail is not None
        assert attempt.fail.code == ("engine_failed" if misdeed is Misdeed.FAIL else "cannot_continue")

    async def test_hello_comes_once(self, coordinator: Coordinator) -> None:
        async with misbehaving(coordinator.url, Misdeed.HELLO_AGAIN) as worker:
            await coordinator.push(make_job(1))
            async with asyncio.timeout(5):
                await worker.misbehaved.wait()
                while len(coordinator.hellos) < 2:
                    await asyncio.sleep(0.001)

        assert coordinator.hellos[1].open == []


class TestAtARealPost:
    async def test_an_honest_one_is_paid(self, tmp_path: Path) -> None:
        """So that what a test of the coordinator sees of the others is their misdeed, and not the script."""
        async with open_post(tmp_path) as post, misbehaving(post.url) as worker:
            job = await submit(post.core, order(post.buyer_id, max_tokens=100))
            async with asyncio.timeout(5):
                await worker.until(lambda: bool(worker.settled))

            assert "".join(frame.text for frame in job.frames) == WHOLE
            assert (worker.settled[0].state, worker.settled[0].tokens) == ("done", 12)

    @pytest.mark.parametrize("misdeed", [Misdeed.BELOW_ZERO, Misdeed.TOO_MANY, Misdeed.NEGATIVE_TOKENS])
    async def test_counts_that_nobody_can_pay_are_no_message(self, tmp_path: Path, misdeed: Misdeed) -> None:
        async with open_post(tmp_path) as post, misbehaving(post.url, misdeed) as worker:
            job = await submit(post.core, order(post.buyer_id, max_tokens=100))
            async with asyncio.timeout(5):
                await worker.closed.wait()

            assert "not a message of the link" in worker.goodbyes[0].reason
            assert (len(job.frames), job.usage.prompt_tokens) == (3, 0)

    @pytest.mark.parametrize(
        "fault",
        [
            {"price_out_uusd_per_mtok": -1},
            {"price_in_uusd_per_mtok": -1},
            {"context_tokens": 0},
            {"name": ""},
            {"kinds": []},
        ],
    )
    async def test_an_offer_is_checked_on_the_link_as_at_registration(
        self, tmp_path: Path, fault: dict[str, Any]
    ) -> None:
        """Else a host that registered well could ask less than nothing for its work."""
        async with open_post(tmp_path) as post, misbehaving(post.url) as worker:
            bad = msgspec.structs.replace(MODEL, **fault)
            await worker.send(Models([bad], 8))
            async with asyncio.timeout(5):
                await worker.closed.wait()
            worker.models = [bad]
            await worker.link()

            assert [bye.reconnect_after_s for bye in worker.goodbyes] == [1.0, -1.0]
            assert all("offer" in bye.reason for bye in worker.goodbyes)

    async def test_an_offer_of_nothing_is_a_host_whose_engines_are_away(self, tmp_path: Path) -> None:
        async with open_post(tmp_path) as post, misbehaving(post.url) as worker:
            await worker.send(Models([], 8))
            async with asyncio.timeout(5):
                while post.core.fleet.models():
                    await asyncio.sleep(0.01)
            assert worker.goodbyes == []
            worker.models = []
            await worker.link()

            # Said on the first link, if it was heard by now.
            assert {bye.reason for bye in worker.goodbyes} <= {"another connection of this host took over"}
