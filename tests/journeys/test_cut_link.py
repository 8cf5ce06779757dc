"""A worker behind a bad line: the real coordinator's streams stay whole, paid and signed."""

import asyncio
import dataclasses
import itertools
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comptoir.dispatch.cancel import cancel
from comptoir.dispatch.submit import Order, submit
from comptoir.jobs import JobState, LiveJob, Reader
from comptoir.ledger import audit
from comptoir.receipts import read_registry, verify
from comptoir.transports.link.session import Session
from comptoir.worker import backoff
from tests.post import open_post
from tests.worker.cutting_proxy import serve_cutting


def order(owner: bytes, *, max_tokens: int) -> Order:
    body = b'{"model":"trivial","messages":[{"role":"user","content":"hi"}],"max_tokens":%d}' % max_tokens
    return Order(owner, "test", "chat", "trivial", body, max_tokens, False)


async def text_of(job: LiveJob) -> str:
    reader, text = Reader(job), ""
    while (frames := await reader.next()) is not None:
        text += "".join(frame.text for frame in frames)
    return text


class TestBadLine:
    @pytest.mark.parametrize("seed", [1, 2, 3])
    async def test_cuts_inside_messages_lose_and_double_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
    ) -> None:
        monkeypatch.setattr(backoff, "BACKOFF_LAST_S", 0.01)
        dice = random.Random(seed)
        # The registration and the first link are good; once every job has begun no link lives beyond 6,000 bytes.
        allowed = itertools.chain([10**9] * 2, iter(lambda: dice.randint(600, 6000), 0))
        async with (
            open_post(tmp_path, window_frames=64) as post,
            serve_cutting(int(post.url.rsplit(":", 1)[1]), lambda: next(allowed)) as proxy,
            dataclasses.replace(post, url=proxy.url).worker(options={"per_s": 1000.0}),
        ):
            bounded = order(post.buyer_id, max_tokens=1000)
            growing = msgspec.structs.replace(bounded, output_max=100, open_ended=True)
            jobs = [await submit(post.core, each) for each in (bounded, growing) * 2]
            async with asyncio.timeout(30):
                for job in jobs:
                    await Reader(job).next()
                proxy.cut()
                texts = await asyncio.gather(*(text_of(job) for job in jobs))

            assert texts == [" tok" * 1000] * 4
            assert [job.state for job in jobs] == [JobState.COMPLETED] * 4
            assert proxy.cuts > 5
            registry = read_registry(await post.core.receipts.registry())
            for job in jobs:
                verdict = verify(await post.core.receipts.envelope_of(job.id), registry)
                assert verdict.ok and verdict.unsigned_segments == 0
            assert await audit(post.core.db) == []


class TestGrowingBound:
    """A worker that waits at its bound sends nothing that would remind anybody of it."""

    async def test_a_raise_that_nobody_made_is_made_when_its_link_is_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As after a coordinator that took the job over with all its frames shown."""
        monkeypatch.setattr("comptoir.dispatch.stream.extend_if_due", lambda core, job: None)
        await self._answered_after_a_cut(tmp_path, monkeypatch)

    async def test_one_that_was_made_while_it_was_welcomed_is_told_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compare = Session._compare

        def and_raised(session: Session, *hello: Any) -> Any:
            compared = compare(session, *hello)
            for job in session._core.jobs.live.under_lease():
                job.begin_quote()
                job.end_quote((msgspec.structs.replace(job.terms, output_max=1000), ()), own_money=True)
            return compared

        monkeypatch.setattr(Session, "_compare", and_raised)
        for place in ("dispatch.stream", "transports.link.session"):
            monkeypatch.setattr(f"comptoir.{place}.extend_if_due", lambda core, job: None)
        await self._answered_after_a_cut(tmp_path, monkeypatch)

    async def _answered_after_a_cut(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backoff, "BACKOFF_LAST_S", 0.01)
        async with (
            open_post(tmp_path) as post,
            serve_cutting(int(post.url.rsplit(":", 1)[1]), lambda: 10**9) as proxy,
            dataclasses.replace(post, url=proxy.url).worker(prices={"token_in": 0, "token_out": 0}),
        ):
            asked = msgspec.structs.replace(order(post.buyer_id, max_tokens=60), output_max=40, open_ended=True)
            job = await submit(post.core, asked)
            async with asyncio.timeout(10):
                while len(job.frames) < 40:
                    await asyncio.sleep(0.001)
                proxy.cut()

                assert await text_of(job) == " tok" * 60
            assert job.finish_reason == "stop"


class TestCancel:
    async def test_the_worker_lets_go_and_goes_on(self, tmp_path: Path) -> None:
        async with open_post(tmp_path) as post, post.worker(options={"per_s": 500.0}, slots=1):
            first = await submit(post.core, order(post.buyer_id, max_tokens=1000))
            async with asyncio.timeout(10):
                await Reader(first).next()
                await cancel(post.core, first)
                second = await submit(post.core, order(post.buyer_id, max_tokens=5))
                text = await text_of(second)

            assert first.state == JobState.CANCELLED
            assert text == " tok" * 5
            assert await audit(post.core.db) == []
