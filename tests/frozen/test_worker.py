"""A worker of commit 6daa2b3 at a coordinator of today: it is given work, goes on for others as they for it, is paid, signs."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from comptoir.kit.ids import public
from comptoir.link import CONTAINER
from comptoir.receipts import PREDICATE_TYPE, AuthenticatedBy, InTotoStatement, SegmentEntry, read_registry, verify
from tests.chaos.chains import public_id
from tests.chaos.engine import MODEL, UNMARKED, Wanted, prompt_of, text_of, wanted_of
from tests.frozen.worker_6daa2b3 import PROMPT_TOKENS, ContainerCard, ModelOffer, Worker
from tests.post import PRICE, Post, open_post

NUMBERED = "tests.chaos.engine:NumberedEngine"
APPENDING = "tests.chaos.chains:AppendingEngine"

CHAT = ModelOffer(MODEL, ["chat"], 100_000, PRICE["token_in"], PRICE["token_out"], True)
RUN_UUSD = 1_000
STAGE = ModelOffer("append-old", ["container"], 100_000, 0, RUN_UUSD * 1_000_000, container=ContainerCard("an old one"))


def cheaper(offer: ModelOffer) -> ModelOffer:
    """Ask a little less, so as to be asked first."""
    return msgspec.structs.replace(offer, price_out_uusd_per_mtok=offer.price_out_uusd_per_mtok - 1)


def piece(body: bytes, number: int) -> str | None:
    """Answer as `NumberedEngine` does, so that either goes on for the other."""
    wanted = wanted_of(body)
    return text_of(wanted.tag, number, UNMARKED) if number < wanted.frames else None


@contextlib.asynccontextmanager
async def frozen(post: Post, *models: ModelOffer, slots: int = 4) -> AsyncIterator[Worker]:
    """Run a worker of that day at *post* until the block ends."""
    worker = Worker(post.url, models, piece=piece, slots=slots)
    running = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(20):
            await worker.linked.wait()
        yield worker
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@dataclass
class Answer:
    """What a buyer got."""

    job: str
    text: str
    usage: dict[str, Any]


async def ask(post: Post, wanted: Wanted) -> Answer:
    """Buy a streamed answer as an OpenAI client does, and read it to its end."""
    body = {
        "model": MODEL, "messages": [{"role": "user", "content": prompt_of(wanted)}], "max_tokens": 200, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    bearer = {"authorization": f"Bearer {post.buyer_key}"}
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession() as session,
        session.post(f"{post.url}/v1/chat/completions", json=body, headers=bearer) as answer,
    ):
        assert answer.status == 200, await answer.text()
        text, usage = "", dict[str, Any]()
        async for line in answer.content:
            if line.startswith(b"data: {"):
                chunk = json.loads(line[6:])
                usage = chunk.get("usage") or usage
                text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
        return Answer(answer.headers["x-comptoir-job"], text, usage)


async def run_chain(post: Post, *containers: str) -> tuple[str, dict[str, Any]]:
    """Buy a chain of containers as an Infernet client does; return the job's public id and what it put out."""
    body = {"containers": list(containers), "data": {"tag": "t"}}
    bearer = {"authorization": f"Bearer {post.buyer_key}"}
    async with asyncio.timeout(30), aiohttp.ClientSession(headers=bearer) as session:
        async with session.post(f"{post.url}/infernet/api/jobs", json=body) as answer:
            assert answer.status == 200, await answer.text()
            job = (await answer.json())["id"]
        while True:
            async with session.get(f"{post.url}/infernet/api/jobs?id={job}") as answer:
                (found,) = await answer.json()
            if found["status"] != "running":
                assert found["status"] == "success", found
                return public_id(job), found["result"]["output"]
            await asyncio.sleep(0.02)


async def until_told(old: Worker) -> None:
    """Wait until it was told what it earned, which is after its buyer was answered."""
    async with asyncio.timeout(20):
        while not old.settled:
            await asyncio.sleep(0.01)


async def receipt_of(post: Post, job: str) -> InTotoStatement:
    """Verify a job's receipt with nothing but the registry."""
    envelope = await post.core.receipts.envelope_of(bytes.fromhex(job.removeprefix("job_")))
    verdict = verify(envelope, read_registry(await post.core.receipts.registry()))
    assert verdict.ok and verdict.statement is not None, verdict
    assert verdict.statement.predicate_type == PREDICATE_TYPE
    return verdict.statement


def counted(segment: SegmentEntry) -> dict[str, tuple[int, int]]:
    """Return count and rate of each unit."""
    return {entry.unit: (entry.count, entry.rate) for entry in segment.units}


def whole(wanted: Wanted) -> str:
    return "".join(text_of(wanted.tag, number, UNMARKED) for number in range(wanted.frames))


class TestChat:
    async def test_it_is_offered_given_the_job_paid_and_its_signature_holds(self, tmp_path: Path) -> None:
        wanted = Wanted("a", 12, marked=False)
        async with open_post(tmp_path, fee_bps=0) as post, frozen(post, CHAT) as old:
            (card,) = post.core.fleet.catalog.models()
            answer = await ask(post, wanted)
            receipt = (await receipt_of(post, answer.job)).predicate

            assert card.name == MODEL
            assert answer.text == whole(wanted)
            assert (answer.usage["prompt_tokens"], answer.usage["completion_tokens"]) == (PROMPT_TOKENS, 12)
            (segment,) = receipt.segments
            assert segment.host == old.host_id
            assert segment.authenticated_by is AuthenticatedBy.SIGNATURE
            assert counted(segment) == {"token_in": (PROMPT_TOKENS, 1_000_000), "token_out": (12, 100_000_000)}
            await until_told(old)
            (settled,) = old.settled
            assert (settled.state, settled.tokens) == ("done", 12)
            assert settled.earned_uusd == receipt.amounts.charged_uusd == PROMPT_TOKENS * 1 + 12 * 100

    async def test_a_new_worker_goes_on_with_what_it_began(self, tmp_path: Path) -> None:
        wanted = Wanted("b", 12, marked=False)
        async with open_post(tmp_path) as post, post.worker(engine=NUMBERED), frozen(post, cheaper(CHAT)) as old:
            old.fail_at = 5
            answer = await ask(post, wanted)
            receipt = (await receipt_of(post, answer.job)).predicate

            assert answer.text == whole(wanted)
            first, second = receipt.segments
            assert first.host == old.host_id != second.host
            assert (first.end_frame, second.first_frame, second.end_frame) == (5, 5, 12)
            assert counted(first)["token_out"] == (5, 99_999_999)
            assert second.authenticated_by is AuthenticatedBy.SIGNATURE

    async def test_it_goes_on_with_what_a_new_worker_began(self, tmp_path: Path) -> None:
        wanted = Wanted("c", 12, trouble="fails", at=5, marked=False)
        prices = {**PRICE, "token_out": PRICE["token_out"] - 1}
        async with open_post(tmp_path) as post, post.worker(engine=NUMBERED, prices=prices), frozen(post, CHAT) as old:
            answer = await ask(post, wanted)
            receipt = (await receipt_of(post, answer.job)).predicate

            assert answer.text == whole(wanted)
            first, second = receipt.segments
            assert first.host != old.host_id == second.host
            assert (first.end_frame, second.first_frame, second.end_frame) == (5, 5, 12)
            assert second.authenticated_by is AuthenticatedBy.SIGNATURE
            assert counted(second)["token_out"] == (7, 100_000_000)

    async def test_it_comes_back_with_its_frames(self, tmp_path: Path) -> None:
        wanted = Wanted("d", 12, marked=False)
        async with open_post(tmp_path) as post, frozen(post, CHAT) as old:
            old.stop_at = 6
            asking = asyncio.create_task(ask(post, wanted))
            await old.reached.wait()
            old.linked.clear()
            await old.cut()
            old.go.set()
            await old.linked.wait()
            answer = await asking
            (segment,) = (await receipt_of(post, answer.job)).predicate.segments

            assert answer.text == whole(wanted)
            assert (old.resumed, len(old.jobs)) == (1, 1)
            assert segment.authenticated_by is AuthenticatedBy.SIGNATURE

    async def test_it_drains_after_what_it_has(self, tmp_path: Path) -> None:
        wanted = Wanted("e", 12, marked=False)
        async with open_post(tmp_path) as post, frozen(post, cheaper(CHAT)) as old, post.worker(engine=NUMBERED):
            old.stop_at = 6
            asking = asyncio.create_task(ask(post, wanted))
            await old.reached.wait()
            await old.drain()
            other = await ask(post, Wanted("f", 3, marked=False))
            old.go.set()
            answer = await asking
            receipt = (await receipt_of(post, other.job)).predicate

            assert answer.text == whole(wanted)
            assert receipt.segments[0].host != old.host_id
            await until_told(old)
            assert len(old.jobs) == len(old.settled) == 1


class TestContainers:
    async def test_it_runs_a_stage_for_the_price_of_a_run(self, tmp_path: Path) -> None:
        async with open_post(tmp_path, fee_bps=0) as post, frozen(post, STAGE) as old:
            (card,) = post.core.fleet.catalog.containers()
            job, output = await run_chain(post, "append-old")
            receipt = (await receipt_of(post, job)).predicate

            assert (card.name, card.description) == ("append-old", "an old one")
            assert output == {"tag": "t", "said": ["append-old"]}
            (segment,) = receipt.segments
            assert (receipt.kind, segment.host) == (CONTAINER, old.host_id)
            assert segment.authenticated_by is AuthenticatedBy.SIGNATURE
            assert counted(segment) == {"run": (1, RUN_UUSD * 1_000_000)}
            await until_told(old)
            assert [(one.state, one.earned_uusd) for one in old.settled] == [("done", RUN_UUSD)]

    async def test_a_chain_runs_over_one_old_and_one_new_host(self, tmp_path: Path) -> None:
        prices = {"run": 2 * RUN_UUSD * 1_000_000}
        async with (
            open_post(tmp_path, fee_bps=0) as post,
            post.worker(engine=APPENDING, prices=prices),
            frozen(post, STAGE) as old,
        ):
            job, output = await run_chain(post, "append-x", "append-old", "append-y")
            receipt = (await receipt_of(post, job)).predicate

            assert output["said"] == ["append-x", "append-old", "append-y"]
            assert [segment.host == old.host_id for segment in receipt.segments] == [False, True, False]
            assert all(segment.authenticated_by is AuthenticatedBy.SIGNATURE for segment in receipt.segments)
            assert receipt.amounts.charged_uusd == 5 * RUN_UUSD
            assert {one.payee for one in receipt.amounts.transfers} == {segment.host for segment in receipt.segments}

    async def test_what_its_containers_say_is_asked_of_it(self, tmp_path: Path) -> None:
        async with open_post(tmp_path) as post, frozen(post, STAGE) as old:
            line = post.core.channels[bytes.fromhex(old.host_id.removeprefix("host_"))]
            async with asyncio.timeout(5):
                said = await line.inquire("append-old", "some/model")

            assert public("host", next(iter(post.core.channels))) == old.host_id
            assert json.loads(said) == {"supported": True}
