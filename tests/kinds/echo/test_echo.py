"""The proof of the seam: a kind that the package does not know is bought, made by hosts of every transport, streamed,
gone on with, billed, refunded, receipted, verified offline, audited and shown, with no line of ``src`` about it.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from comptoir.cli.main import program
from comptoir.receipts import read_registry, verify
from comptoir.reports import audit
from comptoir.worker.engines.registry import EngineSpec
from comptoir.worker.run import WorkerConfig, run_worker
from tests.kinds.echo.hosts import PollingHost, PushedHost
from tests.post import Post, open_post

KIND = "tests.kinds.echo:Echo"
"""The one line of registration."""

ENGINE = "tests.kinds.echo.engine:EchoEngine"
TEXT, TIMES = "Hello! ", 10
BYTES = len(TEXT) * TIMES
RATE = 20_000_000
"""Micro-dollars per million bytes: two credits a kilobyte."""

COST_UUSD = BYTES * 20
FEE_BPS = 1_200


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    """A trading post that sells echoes too; a host that stands still loses its job after a fifth of a second."""
    async with open_post(
        tmp_path, kinds=(KIND,), allow_private_endpoint_urls=True, stall_floor_s=0.2, stall_factor=1.0, fee_bps=FEE_BPS
    ) as opened:
        yield opened


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client of its own."""
    async with aiohttp.ClientSession() as opened:
        yield opened


class LinkedHost:
    """Our worker with the echo engine; with *lost_after* it stands still behind so many pieces."""

    def __init__(self, post: Post, *, lost_after: int | None = None) -> None:
        self._config = WorkerConfig(
            url=post.url,
            kinds=[KIND],
            engines=[EngineSpec(ENGINE, {"stops_after": lost_after or 0})],
            prices={"byte": RATE},
            measure=False,
            state_dir=str(post.folder / f"worker-{lost_after}"),
            drain_s=0.0,
        )

    async def serve(self) -> None:
        """Serve until cancelled."""
        stop = asyncio.Event()
        task = asyncio.create_task(run_worker(self._config, stop=stop))
        try:
            await asyncio.shield(task)
        finally:
            stop.set()
            await asyncio.wait([task], timeout=20)


Serve = Callable[[], Coroutine[Any, Any, None]]


def host(
    transport: str,
    post: Post,
    session: aiohttp.ClientSession,
    *,
    lost_after: int | None = None,
    lost: asyncio.Event | None = None,
) -> Serve:
    """Return what a host of *transport* does; it is lost behind so many pieces, a linked one by its silence."""
    if transport == "link":
        return LinkedHost(post, lost_after=lost_after).serve
    made = (PollingHost if transport == "poll" else PushedHost)(session, post.url, lost_after=lost_after, lost=lost)
    return made.serve


@contextlib.asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[None]:
    """Run a host beside the block."""
    task = asyncio.create_task(serve())
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until_offered(post: Post, hosts: int = 1) -> None:
    """Wait until so many hosts that can be given a job offer echoes."""
    async with asyncio.timeout(20):
        while True:
            found = post.core.fleet.free_list("parrot")
            if found is not None and sum(1 for _ in found.free()) >= hosts:
                return
            await asyncio.sleep(0.01)


async def until_able(post: Post) -> None:
    """Wait until a second host is here."""
    async with asyncio.timeout(20):
        while post.core.fleet.active_hosts < 2:
            await asyncio.sleep(0.01)


async def buy(post: Post, session: aiohttp.ClientSession, **fields: Any) -> tuple[int, Any]:
    body = {"kind": "echo", "model": "parrot", "body": {"text": TEXT, "times": TIMES}} | fields
    headers = {"authorization": f"Bearer {post.buyer_key}"}
    async with session.post(post.url + "/house/jobs", json=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def follow(post: Post, session: aiohttp.ClientSession, job: str) -> tuple[str, dict[str, Any]]:
    """Return the output as it streamed, and how it ended."""
    headers = {"authorization": f"Bearer {post.buyer_key}"}
    text = ""
    async with session.get(f"{post.url}/house/jobs/{job}/frames", headers=headers) as answer:
        name = ""
        async for line in answer.content:
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data" and name == "end":
                return text, json.loads(value)
            elif field == "data":
                text += json.loads(value).get("text", "")
    raise AssertionError("the stream ended without its end")


async def shown(post: Post, session: aiohttp.ClientSession, path: str) -> Any:
    async with session.get(post.url + path, headers={"authorization": f"Bearer {post.buyer_key}"}) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def units_of(post: Post, job: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Verify the job's receipt with nothing but the published keys; return what each host is said to have made."""
    job_id = bytes.fromhex(job["id"][4:])
    verdict = verify(await post.core.receipts.envelope_of(job_id), read_registry(await post.core.receipts.registry()))
    assert verdict.ok and verdict.statement is not None, verdict
    assert verdict.statement.predicate.kind == "echo"
    return [(unit.unit, unit.count, unit.rate) for part in verdict.statement.predicate.segments for unit in part.units]


class TestOneHost:
    @pytest.mark.parametrize("transport", ["link", "poll", "push"])
    async def test_an_echo_is_made_streamed_billed_and_receipted(
        self, post: Post, session: aiohttp.ClientSession, transport: str
    ) -> None:
        async with serving(host(transport, post, session)):
            await until_offered(post)
            status, job = await buy(post, session)
            assert (status, job["hold_uusd"]) == (201, COST_UUSD), job
            text, end = await follow(post, session, job["id"])

        assert text == TEXT * TIMES
        assert (end["state"], end["finish_reason"], end["cost_uusd"]) == ("completed", "stop", COST_UUSD)
        assert await units_of(post, job) == [("byte", BYTES, RATE)]
        assert await audit(post.core.db) == []


class TestLostHost:
    @pytest.mark.parametrize(
        ("first", "second"), [("link", "poll"), ("poll", "push"), ("push", "link"), ("link", "link"), ("push", "poll")]
    )
    async def test_another_goes_on_after_the_last_piece(
        self, post: Post, session: aiohttp.ClientSession, first: str, second: str
    ) -> None:
        lost = asyncio.Event()
        async with serving(host(first, post, session, lost_after=4, lost=lost)):
            await until_offered(post)
            _, job = await buy(post, session)
            following = asyncio.create_task(follow(post, session, job["id"]))
            live = post.core.jobs.live.get(bytes.fromhex(job["id"][4:]))
            async with asyncio.timeout(20):
                while live is not None and len(live.frames) < 4:
                    await asyncio.sleep(0.01)
            async with serving(host(second, post, session)):
                await until_able(post)
                lost.set()
                text, end = await asyncio.wait_for(following, 30)

        assert (text, end["state"], end["cost_uusd"]) == (TEXT * TIMES, "completed", COST_UUSD)
        part = len(TEXT)
        assert await units_of(post, job) == [("byte", 4 * part, RATE), ("byte", 6 * part, RATE)]
        attempts = (await shown(post, session, f"/house/jobs/{job['id']}"))["attempts"]
        earned = [4 * part * 20 - 4 * part * 20 * FEE_BPS // 10_000, 6 * part * 20 - 6 * part * 20 * FEE_BPS // 10_000]
        assert [one["paid_uusd"] for one in attempts] == earned
        assert await audit(post.core.db) == []


class TestMoney:
    async def test_what_did_not_arrive_is_given_back(self, post: Post, session: aiohttp.ClientSession) -> None:
        before = (await shown(post, session, "/house/me"))["account"]["free_uusd"]
        async with serving(host("link", post, session, lost_after=3)):
            await until_offered(post)
            _, job = await buy(post, session)
            live = post.core.jobs.live.get(bytes.fromhex(job["id"][4:]))
            async with asyncio.timeout(20):
                while live is not None and len(live.frames) < 3:
                    await asyncio.sleep(0.01)
            headers = {"authorization": f"Bearer {post.buyer_key}"}
            async with session.post(f"{post.url}/house/jobs/{job['id']}/cancel", headers=headers) as answer:
                assert answer.status == 200, await answer.text()

        cost = 3 * len(TEXT) * 20
        assert (await shown(post, session, f"/house/jobs/{job['id']}"))["cost_uusd"] == cost
        assert (await shown(post, session, "/house/me"))["account"]["free_uusd"] == before - cost
        assert await units_of(post, job) == [("byte", 3 * len(TEXT), RATE)]

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ({"body": {"text": "", "times": 1}}, 422),
            ({"body": {"text": "a", "times": 0}}, 422),
            ({"body": 7}, 422),
            ({"kind": "chat", "output_max": 5}, 422),
            ({"model": "cockatoo"}, 404),
            ({"body": {"text": "a" * 1000, "times": 100_000}}, 402),
            ({"body": {"text": "a" * 30_000, "times": 100_000}}, 422),
        ],
    )
    async def test_what_is_no_order_is_refused_before_anything_is_held(
        self, post: Post, session: aiohttp.ClientSession, fields: dict[str, Any], status: int
    ) -> None:
        async with serving(host("link", post, session)):
            await until_offered(post)

            answer = await buy(post, session, **fields)

        assert answer[0] == status, answer
        assert (await shown(post, session, "/house/me"))["account"]["held_uusd"] == 0


class TestShown:
    async def test_in_the_kinds_own_words(self, post: Post, session: aiohttp.ClientSession) -> None:
        async with serving(host("link", post, session)):
            await until_offered(post)
            _, job = await buy(post, session)
            await follow(post, session, job["id"])
            (offered,) = (await shown(post, session, "/house/models"))["others"]
            async with session.get(post.url + "/", headers={"accept": "text/html"}) as answer:
                page = await answer.text()
            async with session.get(post.url + "/metrics", headers={"accept": "text/plain"}) as answer:
                metrics = await answer.text()

            def command(*words: str) -> str:
                result = CliRunner().invoke(program, [*words, "--url", post.url, "--key", post.buyer_key])
                assert result.exit_code == 0, result.output
                return result.output

            listed = await asyncio.to_thread(command, "jobs")
            told = await asyncio.to_thread(command, "jobs", "show", job["id"])
            models = await asyncio.to_thread(command, "models")
            receipt = await asyncio.to_thread(command, "receipt", "show", job["id"])

        assert (offered["name"], offered["kinds"]) == ("parrot", ["echo"])
        assert "parrot" in page and "per kilobyte" in page
        assert 'comptoir_units_total{unit="byte"} 70.0' in metrics
        assert "parrot" in listed and "70 bytes" in listed
        assert re.search(r"^echo +parrot", told, re.MULTILINE) and re.search(r"^bytes +70 of 70", told, re.MULTILINE)
        assert "kilobyte" in models
        assert re.search(r"^(byte|bytes) +70", receipt, re.MULTILINE), receipt
