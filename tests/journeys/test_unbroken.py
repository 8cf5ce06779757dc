"""Hosts break in every way there is, in the middle of an answer: the buyer reads one whole stream, and the books are
exact."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from comptoir.dispatch import watch
from comptoir.dispatch.drain import Shutdown
from comptoir.dispatch.submit import submit
from comptoir.jobs import JobState, LiveJob, Reader
from comptoir.kit.ids import parse
from comptoir.link import Frame
from comptoir.receipts import InTotoStatement, read_registry, verify
from comptoir.reports import audit
from tests.journeys.test_first_job import order
from tests.post import Post, open_post
from tests.worker.misbehaving import PROMPT_TOKENS, WORDS, Misdeed, ScriptedWorker, misbehaving, words

WHOLE = "".join(frame.text for frame in words())
AFTER = 3

LOST, FAILED, UNPAID, KEPT = "lost", "failed", "unpaid", "kept"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Don't wait for a worker that is not coming back."""
    monkeypatch.setattr(watch, "RELINK_BRIEF_S", 0.01)


async def text_of(job: LiveJob) -> str:
    """Read *job* to its end."""
    reader, text = Reader(job), ""
    async with asyncio.timeout(20):
        while (frames := await reader.next()) is not None:
            text += "".join(frame.text for frame in frames)
    return text


def host_of(worker: ScriptedWorker) -> bytes:
    host_id = parse("host", worker.host_id)
    assert host_id is not None
    return host_id


async def given_to(post: Post, worker: ScriptedWorker, others: list[ScriptedWorker], *, tokens: int = WORDS) -> LiveJob:
    """Submit a job that *worker* gets, though *others* are there."""
    fleet = post.core.fleet
    for other in others:
        fleet.drain(host_of(other))
    job = await submit(post.core, order(post.buyer_id, max_tokens=tokens))
    for other in others:
        fleet.resume(host_of(other))
    assert job.host_id == host_of(worker)
    return job


async def receipt(post: Post, job: LiveJob) -> InTotoStatement:
    core = post.core
    verdict = verify(await core.receipts.envelope_of(job.id), read_registry(await core.receipts.registry()))
    assert verdict.ok, verdict
    assert verdict.statement is not None
    return verdict.statement


@asynccontextmanager
async def workers(post: Post, *misdeeds: Misdeed, after: int = AFTER) -> AsyncIterator[list[ScriptedWorker]]:
    """Link one scripted worker for each of *misdeeds*."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(misbehaving(post.url, misdeed, after=after)) for misdeed in misdeeds]


class TestMisbehaving:
    @pytest.mark.parametrize(
        ("misdeed", "becomes"),
        [
            (Misdeed.STALL, LOST),
            (Misdeed.DROP, LOST),
            (Misdeed.GAP, LOST),
            (Misdeed.REORDER, LOST),
            (Misdeed.REPEAT, KEPT),
            (Misdeed.REPEAT_OTHER, KEPT),
            (Misdeed.WRONG_CHAIN, UNPAID),
            (Misdeed.WRONG_SIGNATURE, UNPAID),
            (Misdeed.WRONG_END, LOST),
            (Misdeed.TEXT, LOST),
            (Misdeed.NOT_MSGPACK, LOST),
            (Misdeed.NOT_UTF8, LOST),
            (Misdeed.NEGATIVE_TOKENS, LOST),
            (Misdeed.TOO_MANY_TOKENS, FAILED),
            (Misdeed.HELLO_AGAIN, LOST),
            (Misdeed.OTHERS_LEASE, KEPT),
            (Misdeed.FAIL, FAILED),
        ],
        ids=str,
    )
    async def test_whatever_a_host_does_the_answer_is_whole_and_each_is_paid_its_part(
        self, tmp_path: Path, misdeed: Misdeed, becomes: str
    ) -> None:
        async with (
            open_post(tmp_path, stall_floor_s=0.1, stall_factor=1.0) as post,
            workers(post, misdeed, Misdeed.NONE) as (bad, good),
        ):
            job = await given_to(post, bad, [good])

            assert await text_of(job) == WHOLE

            core = post.core
            assert (job.state, job.usage.prompt_tokens, job.usage.completion_tokens) == (
                JobState.COMPLETED,
                PROMPT_TOKENS,
                WORDS,
            )
            stored = core.fleet.get(host_of(bad)).stored()
            told = {LOST: (0, 0, 1), FAILED: (0, 1, 0), UNPAID: (0, 1, 0), KEPT: (1, 0, 0)}
            assert (stored.jobs_done, stored.jobs_failed, stored.jobs_lost) == told[becomes]
            paid = [(await core.ledger.account(host_of(each))).balance_uusd for each in (bad, good)]
            part = {UNPAID: 0, KEPT: WORDS * 100 + PROMPT_TOKENS}.get(becomes, AFTER * 100 + PROMPT_TOKENS)
            rest = {KEPT: 0, UNPAID: (WORDS - AFTER) * 100 + PROMPT_TOKENS}.get(becomes, (WORDS - AFTER) * 100)
            assert paid == [part - part * 12 // 100, rest - rest * 12 // 100]
            segments = (await receipt(post, job)).predicate.segments
            assert [each.authenticated_by for each in segments] == (
                ["signature"] if becomes == KEPT else ["running_hash", "signature"]
            )
            assert await audit(core.db) == []

    async def test_a_host_that_was_only_slow_hears_that_it_lost_the_job_and_what_it_earned(
        self, tmp_path: Path
    ) -> None:
        async with (
            open_post(tmp_path, stall_floor_s=0.1, stall_factor=1.0) as post,
            workers(post, Misdeed.STALL, Misdeed.NONE) as (slow, good),
        ):
            job = await given_to(post, slow, [good])
            assert await text_of(job) == WHOLE

            async with asyncio.timeout(5):
                await slow.until(lambda: len(slow.settled) > 1)
            slow.resume.set()

            part = AFTER * 100 + PROMPT_TOKENS
            assert [(each.state, each.earned_uusd) for each in slow.settled] == [
                ("lost", 0),
                ("lost", part - part * 12 // 100),
            ]

    async def test_one_that_can_not_go_on_is_passed_over(self, tmp_path: Path) -> None:
        async with (
            open_post(tmp_path) as post,
            workers(post, Misdeed.DROP, Misdeed.CANNOT_CONTINUE, Misdeed.NONE) as (bad, unable, good),
        ):
            post.core.fleet.drain(host_of(good))
            job = await given_to(post, bad, [unable])
            async with asyncio.timeout(10):
                await unable.misbehaved.wait()
            post.core.fleet.resume(host_of(good))

            assert await text_of(job) == WHOLE
            assert post.core.fleet.get(host_of(unable)).stored().jobs_failed == 0
            assert await audit(post.core.db) == []

    async def test_three_die_one_after_another(self, tmp_path: Path) -> None:
        async with (
            open_post(tmp_path) as post,
            workers(post, Misdeed.DROP, Misdeed.DROP, Misdeed.DROP, Misdeed.NONE) as (*bad, good),
        ):
            post.core.fleet.drain(host_of(good))
            job = await submit(post.core, order(post.buyer_id, max_tokens=WORDS))
            async with asyncio.timeout(10):
                for worker in bad:
                    await worker.misbehaved.wait()
            post.core.fleet.resume(host_of(good))

            assert await text_of(job) == WHOLE
            segments = (await receipt(post, job)).predicate.segments
            assert [(each.first_frame, each.end_frame) for each in segments] == [(0, 3), (3, 6), (6, 9), (9, 12)]
            assert await audit(post.core.db) == []


class TestSameHost:
    async def test_a_host_whose_process_came_back_without_the_job_goes_on_after_what_arrived(
        self, tmp_path: Path
    ) -> None:
        async with open_post(tmp_path) as post, workers(post, Misdeed.DROP) as (alone,):
            job = await submit(post.core, order(post.buyer_id, max_tokens=WORDS))
            async with asyncio.timeout(10):
                await alone.closed.wait()
            alone.misdeed = Misdeed.NONE
            alone.forget()

            await alone.link()

            assert await text_of(job) == WHOLE
            segments = (await receipt(post, job)).predicate.segments
            assert [(each.first_frame, each.end_frame) for each in segments] == [(0, AFTER), (AFTER, WORDS)]
            assert await audit(post.core.db) == []


class TestHedge:
    async def test_a_host_that_does_not_begin_loses_to_a_second_one(self, tmp_path: Path) -> None:
        async with (
            open_post(tmp_path, hedge=True) as post,
            workers(post, Misdeed.STALL, Misdeed.NONE, after=0) as (slow, good),
        ):
            for _ in range(40):
                post.core.fleet.first_frame(host_of(slow), "trivial", 1.0)
            job = await given_to(post, slow, [good])

            assert await text_of(job) == WHOLE
            assert [each.host for each in (await receipt(post, job)).predicate.segments] == [good.host_id]
            stored = post.core.fleet.get(host_of(slow)).stored()
            assert (stored.jobs_done, stored.jobs_failed, stored.jobs_lost) == (0, 0, 0)
            assert await audit(post.core.db) == []


TOOL_CALL = [
    Frame("Grüße, 漢字 😀 ", 3),
    Frame(
        "",
        1,
        b'{"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]}}',
    ),
    *(
        Frame("", 1, msgspec.json.encode({"delta": {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}}))
        for piece in ('{"ci', 'ty": "Kö', 'ln 😀"', "}")
    ),
    Frame("", 0, b'{"finish_reason":"tool_calls"}'),
]


class TestContents:
    @pytest.mark.parametrize("after", range(len(TOOL_CALL) + 1))
    async def test_characters_and_tool_calls_stay_whole_wherever_it_breaks(self, tmp_path: Path, after: int) -> None:
        async with (
            open_post(tmp_path) as post,
            misbehaving(post.url, Misdeed.FAIL, after=after, answer=TOOL_CALL) as bad,
            misbehaving(post.url, answer=TOOL_CALL) as good,
        ):
            post.core.fleet.drain(host_of(good))
            asked = {"model": "trivial", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}
            headers = {"authorization": f"Bearer {post.buyer_key}"}
            async with aiohttp.ClientSession(headers=headers) as session, asyncio.timeout(20):
                asking = asyncio.create_task(session.post(f"{post.url}/v1/chat/completions", json=asked))
                await bad.misbehaved.wait()
                post.core.fleet.resume(host_of(good))
                async with await asking as response:
                    choice = (await response.json())["choices"][0]

            assert choice["message"]["content"] == "Grüße, 漢字 😀 "
            (call,) = choice["message"]["tool_calls"]
            assert json.loads(call["function"]["arguments"]) == {"city": "Köln 😀"}
            assert choice["finish_reason"] == "tool_calls"
            assert await audit(post.core.db) == []


class TestDrain:
    async def test_an_answer_that_loses_its_host_while_the_house_drains_still_ends_whole(self, tmp_path: Path) -> None:
        async with (
            open_post(tmp_path) as post,
            workers(post, Misdeed.DROP, Misdeed.NONE) as (bad, good),
        ):
            job = await given_to(post, bad, [good])
            post.core.state(Shutdown).draining = True

            assert await text_of(job) == WHOLE
            assert await audit(post.core.db) == []
