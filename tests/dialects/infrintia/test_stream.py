"""Following a job: from the start or from any event on, live, alive through silence, honest about its end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from comptoir.dialects.infrintia.jobs import render_tokens
from comptoir.gateway.readers import OpenStreams
from comptoir.kit.ids import parse
from comptoir.link import Frame
from tests.dialects.infrintia.caller import Caller, events
from tests.dialects.infrintia.conftest import Market
from tests.dialects.infrintia.test_chunks import leased


@contextlib.asynccontextmanager
async def followed(who: Caller, job_id: str, **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """Open a job's stream."""
    sent = {"authorization": f"Bearer {who.key}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with who.session.get(f"{who.url}/jobs/{job_id}/stream", headers=sent) as response:
        assert response.status == 200
        yield response


async def read_event(response: aiohttp.ClientResponse) -> str:
    """Read up to the next empty line."""
    return (await asyncio.wait_for(response.content.readuntil(b"\n\n"), 5)).decode()


async def until_no_stream(market: Market) -> None:
    """Wait until nobody reads."""
    async with asyncio.timeout(5):
        while market.core.state(OpenStreams).count:
            await asyncio.sleep(0.005)


async def forget_everything(market: Market) -> None:
    """Have a month pass for what is kept of jobs that are over."""
    core, in_a_month = market.core, market.core.clock.now_ms() + 40 * 86_400_000
    core.jobs.live.forget_recent(older_than_ms=in_a_month)
    after: bytes | None = b""
    while after is not None:
        _, after = await core.jobs.forget(older_than_ms=in_a_month, after=after)


@pytest.mark.asyncio(loop_scope="module")
class TestStream:
    async def test_tokens_come_as_they_are_delivered(self, shared: Market) -> None:
        host, job_id = await leased(shared)
        async with followed(shared.buyer, job_id) as response:
            await host.chunk(job_id, "Quantum")
            assert await read_event(response) == 'id: 0\ndata: {"token": "Quantum"}\n\n'
            await host.chunk(job_id, ' "quoted"\n', "é")
            assert await read_event(response) == 'id: 1\ndata: {"token": " \\"quoted\\"\\n"}\n\n'
            assert await read_event(response) == 'id: 2\ndata: {"token": "é"}\n\n'
            await host.complete(job_id)
            assert await response.text() == "data: [DONE]\n\n"
        assert shared.core.state(OpenStreams).count == 0

    @pytest.mark.parametrize("over", [False, True])
    async def test_it_replays_from_any_event(self, shared: Market, over: bool) -> None:
        host, job_id = await leased(shared)
        tokens = list("abcdef")
        await host.chunk(job_id, *tokens)
        ending = asyncio.create_task(host.complete(job_id))
        if over:
            await ending
        for last in ("", "0", "3", "5", "99"):
            headers = {"last_event_id": last} if last else {}
            answer = await shared.buyer.get(f"/jobs/{job_id}/stream", **headers)
            start = int(last) + 1 if last else 0
            assert events(answer.text) == [
                *((at, f'{{"token": "{tokens[at]}"}}') for at in range(start, len(tokens))),
                (None, "[DONE]"),
            ]
        await ending

    async def test_an_answer_that_began_anew_is_numbered_anew_and_older_numbers_are_refused(
        self, shared: Market
    ) -> None:
        host, job_id = await leased(shared)
        await host.chunk(job_id, "a", "b", "c")
        raw = parse("job", job_id)
        job = shared.core.jobs.live.get(raw) if raw is not None else None
        assert job is not None
        async with followed(shared.buyer, job_id) as ahead:
            assert await read_event(ahead) == 'id: 0\ndata: {"token": "a"}\n\n'
            job.restart(keep=1)
            assert "answer_restarted" in (await ahead.text())
        await host.chunk(job_id, "B", seq=1)
        await host.complete(job_id)

        for last in ("0", "2", "3.0"):
            answer = await shared.buyer.get(f"/jobs/{job_id}/stream", last_event_id=last)
            assert "answer_restarted" in answer.text
            assert "token" not in answer.text
        answer = await shared.buyer.get(f"/jobs/{job_id}/stream", last_event_id="1.0")
        assert answer.text == 'id: 1.1\ndata: {"token": "B"}\n\ndata: [DONE]\n\n'

    async def test_a_long_answer_is_replayed_whole(self, shared: Market) -> None:
        host, job_id = await leased(shared, max_tokens=3_200)
        count = 3_100  # Many times what is read at once.
        await host.chunk(job_id, *["t"] * count)
        await host.complete(job_id)

        answer = await shared.buyer.get(f"/jobs/{job_id}/stream")

        assert [id for id, _ in events(answer.text)] == [*range(count), None]

    async def test_a_failure_ends_it_with_an_error_event(self, shared: Market) -> None:
        host, job_id = await leased(shared)
        await host.chunk(job_id, "a")
        await host.fail(job_id, error="out of memory")

        answer = await shared.buyer.get(f"/jobs/{job_id}/stream")

        assert answer.text == (
            'id: 0\ndata: {"token": "a"}\n\n'
            'event: error\ndata: {"error":{"code":"host_error","message":"out of memory"}}\n\n'
            "data: [DONE]\n\n"
        )

    @pytest.mark.parametrize("last", ["", "1"])
    async def test_an_answer_that_is_no_longer_kept_says_so(self, shared: Market, last: str) -> None:
        """Silence would look like an answer without words, or like one that was read to its end."""
        host, job_id = await leased(shared)
        await host.chunk(job_id, "a", "b", "c")
        await host.complete(job_id)
        await forget_everything(shared)

        answer = await shared.buyer.get(f"/jobs/{job_id}/stream", **({"last_event_id": last} if last else {}))
        job = (await shared.buyer.get(f"/jobs/{job_id}")).body

        assert (answer.status, answer.body) == (
            410,
            {"detail": "the answer is no longer kept; the job's figures and its receipt are"},
        )
        assert (job["status"], job["output_text"], job["tokens"]) == ("completed", None, 3)
        assert job["receipt_id"]

    async def test_one_that_never_had_an_answer_tells_its_error_for_ever(self, shared: Market) -> None:
        _, job_id = await leased(shared)
        await shared.buyer.post(f"/jobs/{job_id}/cancel")
        before = (await shared.buyer.get(f"/jobs/{job_id}/stream")).text
        await forget_everything(shared)

        assert "event: error" in before
        assert (await shared.buyer.get(f"/jobs/{job_id}/stream")).text == before

    async def test_leaving_does_not_stop_the_job(self, shared: Market) -> None:
        host, job_id = await leased(shared)
        async with followed(shared.buyer, job_id) as response:
            await host.chunk(job_id, "a")
            await read_event(response)
            response.close()
        await until_no_stream(shared)

        assert (await host.complete(job_id, tokens=["b"])).status == 200
        assert (await shared.buyer.get(f"/jobs/{job_id}")).body["output_text"] == "ab"

    async def test_readers_do_not_disturb_each_other(self, shared: Market) -> None:
        host, job_id = await leased(shared)
        readers = [asyncio.create_task(shared.buyer.get(f"/jobs/{job_id}/stream")) for _ in range(5)]
        for at in range(20):
            await host.chunk(job_id, str(at))
        await host.complete(job_id)

        texts = {(await reader).text for reader in readers}

        assert len(texts) == 1
        assert len(events(texts.pop())) == 21


class TestBounds:
    @pytest.mark.parametrize("settings", [{"sse_ping_s": 0.1}])
    async def test_silence_is_filled_with_comments(self, market: Market) -> None:
        host, job_id = await leased(market)
        async with followed(market.buyer, job_id) as response:
            assert await read_event(response) == ": ping\n\n"
            assert await read_event(response) == ": ping\n\n"
            await host.complete(job_id, tokens=["x"])
            assert (await response.text()).endswith('data: {"token": "x"}\n\ndata: [DONE]\n\n')

    @pytest.mark.parametrize("settings", [{"subscribers_per_job_max": 2}])
    async def test_a_job_has_only_so_many_readers(self, market: Market) -> None:
        _, job_id = await leased(market)
        async with followed(market.buyer, job_id), followed(market.buyer, job_id):
            answer = await market.buyer.get(f"/jobs/{job_id}/stream")
            assert answer.status == 429
        await until_no_stream(market)
        async with followed(market.buyer, job_id):
            pass

    @pytest.mark.parametrize("settings", [{"streams_max": 1}])
    async def test_the_house_has_only_so_many_streams(self, market: Market) -> None:
        _, job_id = await leased(market)
        async with followed(market.buyer, job_id):
            answer = await market.buyer.get(f"/jobs/{job_id}/stream")
            assert answer.status == 503


class TestCancel:
    async def test_a_running_job_stops_and_pays_what_came(self, market: Market) -> None:
        host, job_id = await leased(market)
        await host.chunk(job_id, "a", "b")

        answer = await market.buyer.post(f"/jobs/{job_id}/cancel")

        assert answer.status == 200
        assert (answer.body["status"], answer.body["credits_used"]) == ("cancelled", 0.02)
        assert (await host.chunk(job_id, "c")).status == 409
        stream = (await market.buyer.get(f"/jobs/{job_id}/stream")).text
        assert '"code":"cancelled"' in stream and stream.endswith("data: [DONE]\n\n")

    async def test_a_queued_job_costs_nothing(self, market: Market) -> None:
        host = await market.anyone.register()
        job_id = (await market.buyer.run()).body["job_id"]

        answer = await market.buyer.post(f"/jobs/{job_id}/cancel")

        assert (answer.body["status"], answer.body["credits_used"]) == ("cancelled", 0)
        assert (await market.buyer.get("/users/me")).body["credits"] == 100.0
        assert (await host.next_job(wait_s=0)).status == 204

    async def test_cancelling_again_says_the_same(self, market: Market) -> None:
        await market.anyone.register()
        job_id = (await market.buyer.run()).body["job_id"]
        first = await market.buyer.post(f"/jobs/{job_id}/cancel")

        again = await market.buyer.post(f"/jobs/{job_id}/cancel")

        assert (again.status, again.body) == (200, first.body)


class TestRenderTokens:
    def test_pieces_without_text_have_no_event_but_keep_their_number(self) -> None:
        rendered = render_tokens([Frame("", 0), Frame("a"), Frame("", 0), Frame("b")], number=7)

        assert rendered == b'id: 8\ndata: {"token": "a"}\n\nid: 10\ndata: {"token": "b"}\n\n'
