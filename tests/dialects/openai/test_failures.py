"""Every row of the table of other gateways' failures (a client hangs up, an upstream dies, a 429 …), done right."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from comptoir.dispatch.meters import Meters
from comptoir.ledger import audit
from tests.at_once import at_once
from tests.dialects.openai.shop import ROLE, STOP, Response, Shop, open_shop
from tests.worker.openai_stand_in import Answer, Handler, Request, delta, serve_openai, sse, stream_of, usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD = stream_of(sse(ROLE, delta({"content": "ok"}), STOP, usage(5, 1)))


def refuses(status: int, error: object, **headers: str) -> Handler:
    async def handle(_: Request, answer: Answer) -> None:
        await answer.whole(status, msgspec.json.encode(error), **headers)

    return handle


def endless(tokens: list[float]) -> Handler:
    """Say a token every few milliseconds for ever, noting when."""

    async def handle(_: Request, answer: Answer) -> None:
        answer.begin_stream()
        await answer.piece(sse(ROLE, done=False))
        while True:
            tokens.append(asyncio.get_running_loop().time())
            await answer.piece(sse(delta({"content": "x"}), done=False))
            await asyncio.sleep(0.005)

    return handle


async def hang_up_after(shop: Shop, body: dict[str, Any], *, until: bytes | Callable[[], bool]) -> None:
    """Send *body* over a bare socket, read until *until* comes (or wait until it is true), close."""
    url = urlsplit(shop.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    data = msgspec.json.encode(body)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
        % (shop.post.buyer_key.encode(), len(data), data)
    )
    async with asyncio.timeout(20):
        if isinstance(until, bytes):
            await reader.readuntil(until)
        else:
            while not until():
                await asyncio.sleep(0.001)
    writer.transport.abort()


class TestHangUp:
    @pytest.mark.parametrize("stream", [True, False])
    async def test_the_host_stops_within_100_ms_and_what_came_is_paid(self, shop: Shop, stream: bool) -> None:
        tokens: list[float] = []
        shop.answers(endless(tokens))
        before, _ = await shop.balance()

        body = shop.chat(stream=stream, max_tokens=100_000)
        meters = shop.post.core.state(Meters)
        arrived = meters.frames
        await hang_up_after(shop, body, until=b'"x"' if stream else lambda: meters.frames > arrived + 3)
        async with at_once():
            await shop.upstream.gone.wait()

        await shop.idle()
        balance, held = await shop.balance()
        paid = (before - balance) // 100
        # Nothing stays held; what had arrived here is paid, and a token may have been on its way.
        assert held == 0
        assert 0 < paid <= len(tokens) <= paid + 15
        assert len(shop.upstream.requests) == 1

    async def test_before_the_first_token_nothing_is_paid(self, shop: Shop) -> None:
        asked = asyncio.Event()

        async def mute(_: Request, answer: Answer) -> None:
            answer.begin_stream()
            await answer.piece(b": thinking\n\n")
            asked.set()
            await asyncio.sleep(30)

        shop.answers(mute)
        before = await shop.balance()

        await hang_up_after(shop, shop.chat(stream=True), until=asked.is_set)
        async with at_once():
            await shop.upstream.gone.wait()

        await shop.idle()
        assert await shop.balance() == before


class TestUpstreamDies:
    def dies_after(self, *texts: str) -> Handler:
        async def handle(_: Request, answer: Answer) -> None:
            answer.begin_stream()
            await answer.piece(sse(ROLE, *(delta({"content": text}) for text in texts), done=False))
            await asyncio.sleep(0.05)
            answer.reset()

        return handle

    async def test_mid_stream_it_is_an_error_event_after_all_tokens_and_done(self, shop: Shop) -> None:
        shop.answers(self.dies_after("a", "b", "c"))

        response = await shop.ask(shop.chat(stream=True))

        assert response.status == 200
        texts = [event["choices"][0]["delta"].get("content") for event in response.events[:-2]]
        assert texts == ["", "a", "b", "c"]
        error = response.events[-2]["error"]
        assert (error["type"], error["param"], error["code"]) == ("server_error", None, "upstream_cut")
        assert response.events[-1] == "[DONE]"

    async def test_not_streamed_it_is_a_502(self, shop: Shop) -> None:
        shop.answers(self.dies_after("a"))

        response = await shop.ask()

        assert (response.status, response.json["error"]["code"]) == (502, "upstream_cut")

    async def test_before_the_first_token_it_is_a_502_too(self, shop: Shop) -> None:
        shop.answers(self.dies_after())

        response = await shop.ask(shop.chat(stream=True))

        assert (response.status, response.headers["content-type"]) == (502, "application/json")

    async def test_an_error_event_is_passed_and_ends_with_done(self, shop: Shop) -> None:
        error = {"message": "CUDA out of memory", "type": "server_error", "param": None, "code": "oom"}
        shop.says(ROLE, delta({"content": "a"}), {"error": error})

        response = await shop.ask(shop.chat(stream=True))

        assert "CUDA out of memory" in response.events[-2]["error"]["message"]
        assert response.events[-1] == "[DONE]"


class TestUpstreamRefuses:
    async def test_429_keeps_retry_after_message_type_and_code(self, shop: Shop) -> None:
        error = {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
        seen = shop.answers(refuses(429, {"error": error}, retry_after="7"))

        response = await shop.ask(shop.chat(stream=True))

        assert (response.status, response.json) == (429, {"error": error})
        assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("7", "7000")
        assert len(seen) == 1

    async def test_500_is_passed_as_it_is(self, shop: Shop) -> None:
        error = {"message": "boom", "type": "internal", "param": "x", "code": "e42"}
        seen = shop.answers(refuses(500, {"error": error}))

        response = await shop.ask()

        assert (response.status, response.json, len(seen)) == (500, {"error": error}, 1)

    @pytest.mark.parametrize("stream", [True, False])
    async def test_400_is_the_buyers_with_the_engines_own_words(self, shop: Shop, stream: bool) -> None:
        error = {
            "message": "too long",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        }
        shop.answers(refuses(400, {"error": error}))

        response = await shop.ask(shop.chat(stream=stream))

        assert (response.status, response.json) == (400, {"error": error})

    async def test_the_flat_error_of_older_servers_is_read(self, shop: Shop) -> None:
        flat = {"object": "error", "message": "bad", "type": "BadRequestError", "param": None, "code": 400}
        shop.answers(refuses(400, flat))

        response = await shop.ask()

        assert response.json == {"error": {"message": "bad", "type": "BadRequestError", "param": None, "code": 400}}

    async def test_a_key_the_host_got_wrong_is_not_called_the_buyers(self, shop: Shop) -> None:
        shop.answers(refuses(401, {"error": {"message": "bad key"}}))

        assert (await shop.ask()).status == 502

    async def test_after_400_429_and_500_others_are_served(self, shop: Shop) -> None:
        for status in (400, 429, 500):
            shop.answers(refuses(status, {"error": {"message": "no"}}))
            assert (await shop.ask()).status == status
        shop.answers(GOOD)

        answers = await asyncio.gather(*(shop.ask() for _ in range(5)))

        assert [answer.status for answer in answers] == [200] * 5

    async def test_nothing_of_it_costs_anything(self, shop: Shop) -> None:
        before = await shop.balance()
        for status in (400, 429, 500):
            shop.answers(refuses(status, {"error": {"message": "no"}}))
            await shop.ask()

        assert await shop.balance() == before


class TestTwoHosts:
    """A refusal before the first token is one host's, not the buyer's, as long as another host is there."""

    @pytest.mark.parametrize("status", [429, 500, 503])
    async def test_another_host_answers(self, tmp_path: Path, status: int) -> None:
        async with open_shop(tmp_path) as pair, serve_openai() as second:
            second.models = pair.upstream.models
            second.handler = refuses(status, {"error": {"message": "not now"}})
            pair.answers(refuses(status, {"error": {"message": "not now"}}))
            async with pair.post.worker(engine="openai", options={"base_url": second.base_url}, name="second"):
                # What the worker asks at its start, to learn whether the server can continue, is not counted.
                before = len(pair.upstream.requests) + len(second.requests)
                refused = await pair.ask()
                assert len(pair.upstream.requests) + len(second.requests) == before + 2
                for stand_in in (pair.upstream, second):
                    stand_in.handler = GOOD
                    answers = [await pair.ask(pair.chat(stream=stream)) for stream in (True, False)]
                    stand_in.handler = refuses(status, {"error": {"message": "not now"}})
                    assert [answer.status for answer in answers] == [200, 200]

        assert refused.status == status
        assert refused.json["error"]["message"] == "not now"


class TestForwarding:
    async def test_unknown_fields_reach_the_engine_byte_for_byte(self, shop: Shop) -> None:
        seen = shop.answers(GOOD)
        body = (
            b'{"model":"up/model-7b","messages":[{"role":"user","content":"\\u00fc","name":"ada"}],"top_k":5,'
            b'"foo":{"bar":[1.10]},"seed":12345678901234567,"metadata":{"a":"b"},"reasoning_effort":"low","max_tokens":9}'
        )

        assert (await shop.ask(body)).status == 200

        for piece in (b'"top_k":5', b'"foo":{"bar":[1.10]}', b"\\u00fc", b'"seed":12345678901234567', b'"name":"ada"'):
            assert piece in seen[0].body
        assert set(seen[0].json) == {
            "model", "messages", "top_k", "foo", "seed", "metadata", "reasoning_effort", "max_tokens", "stream", "stream_options",
        }  # fmt: skip

    async def test_three_megabytes_of_prompt(self, shop: Shop) -> None:
        seen = shop.answers(GOOD)
        prompt = "ü" * 1_500_000

        response = await shop.ask(shop.chat(prompt))

        assert response.status == 200
        assert seen[0].json["messages"][0]["content"] == prompt

    async def test_an_image_does_not_weigh_like_text(self, shop: Shop) -> None:
        """3 MB of base64 would be a million tokens; an engine makes some hundred of them."""
        seen = shop.answers(GOOD)
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 6_000_000}}
        body = shop.chat()
        body["messages"][0]["content"] = [{"type": "text", "text": "what is it?"}, image]

        response = await shop.ask(body)

        assert response.status == 200
        assert len(seen[0].body) > 6_000_000

    async def test_headers_of_other_clients_are_ignored(self, shop: Shop) -> None:
        shop.answers(GOOD)
        headers = {"OpenAI-Organization": "org", "OpenAI-Project": "p", "X-Stainless-Lang": "python"}

        assert (await shop.ask(headers=headers)).status == 200


class TestBound:
    async def test_a_server_that_goes_on_is_cut_off_with_length(self, shop: Shop) -> None:
        shop.says(ROLE, *(delta({"content": str(n)}) for n in range(9)), STOP, usage(5, 9))

        response = await shop.ask(shop.chat(stream=True, max_tokens=3))

        said = [event["choices"][0] for event in response.events[1:-1]]
        assert [choice["delta"].get("content") for choice in said] == ["0", "1", "2", None]
        assert said[-1]["finish_reason"] == "length"

    async def test_what_the_server_counts_is_what_is_paid_and_said(self, shop: Shop) -> None:
        shop.says(ROLE, delta({"content": "four tokens at once"}), STOP, usage(10, 4))

        response = await shop.ask()

        assert response.json["usage"] == {
            "prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14, "cost": 0.00041
        }  # fmt: skip
        assert response.headers["x-comptoir-cost-uusd"] == "410"

    async def test_a_server_that_counts_fewer_than_its_deltas_is_paid_for_fewer(self, shop: Shop) -> None:
        shop.says(ROLE, delta({"content": "a"}), delta({"content": "b"}), STOP, usage(10, 1))

        response = await shop.ask()

        assert response.json["usage"]["completion_tokens"] == 1
        assert response.headers["x-comptoir-cost-uusd"] == "110"


class TestPings:
    async def test_a_long_silence_is_filled_with_comments(self, tmp_path: Path) -> None:
        async def slow(_: Request, answer: Answer) -> None:
            answer.begin_stream()
            await answer.piece(sse(ROLE, delta({"content": "a"}), done=False))
            await asyncio.sleep(0.3)
            await answer.piece(sse(delta({"content": "b"}), STOP, usage(1, 2)))
            answer.end_stream()

        async with open_shop(tmp_path, sse_ping_s=0.1) as shop:
            shop.answers(slow)
            response = await shop.ask(shop.chat(stream=True))

        first, second = response.body.index(b'"a"'), response.body.index(b'"b"')
        assert response.body[first:second].count(b": ping\n\n") in (2, 3)
        assert response.events[-1] == "[DONE]"


class TestIdempotency:
    def headers(self, key: str) -> dict[str, str]:
        return {"Idempotency-Key": key}

    @pytest.mark.parametrize("stream", [True, False])
    async def test_a_repeat_gets_the_first_answer_and_costs_nothing(self, shop: Shop, stream: bool) -> None:
        seen = shop.answers(GOOD)
        body, headers = shop.chat(stream=stream), self.headers(f"repeat-{stream}")
        first = await shop.ask(body, headers=headers)
        before = await shop.balance()

        again = await shop.ask(body, headers=headers)

        assert (again.status, again.body) == (first.status, first.body) and first.status == 200
        assert again.headers["x-comptoir-job"] == first.headers["x-comptoir-job"]
        assert (await shop.balance(), len(seen)) == (before, 1)

    @pytest.mark.parametrize("stream", [True, False])
    async def test_a_repeat_after_the_answer_was_removed_says_so(self, shop: Shop, stream: bool) -> None:
        """Never an empty answer, and never a second one."""
        seen = shop.answers(GOOD)
        body, headers = shop.chat(stream=stream), self.headers(f"old-{stream}")
        await shop.ask(body, headers=headers)
        before = await shop.balance()
        core, in_a_month = shop.post.core, shop.post.core.clock.now_ms() + 40 * 86_400_000
        core.jobs.live.forget_recent(older_than_ms=in_a_month)
        after: bytes | None = b""
        while after is not None:
            _, after = await core.jobs.forget(older_than_ms=in_a_month, after=after)

        again = await shop.ask(body, headers=headers)

        assert (again.status, again.json["error"]["code"]) == (410, "answer_forgotten")
        assert (await shop.balance(), len(seen)) == (before, 1)

    async def test_repeats_at_the_same_time_share_one_job(self, shop: Shop) -> None:
        seen = shop.answers(GOOD)

        answers: list[Response] = await asyncio.gather(
            *(shop.ask(shop.chat(stream=True), headers=self.headers("together")) for _ in range(6))
        )

        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers}) == 1
        assert len(seen) == 1

    async def test_a_client_that_lost_its_connection_finds_the_whole_answer(self, shop: Shop) -> None:
        go_on = asyncio.Event()

        async def handle(_: Request, answer: Answer) -> None:
            answer.begin_stream()
            await answer.piece(sse(ROLE, delta({"content": "a"}), done=False))
            await go_on.wait()
            await answer.piece(sse(delta({"content": "b"}), STOP, usage(1, 2)))
            answer.end_stream()

        seen = shop.answers(handle)
        lost = asyncio.create_task(shop.ask(headers=self.headers("lost")))
        async with asyncio.timeout(20):
            while not seen:
                await asyncio.sleep(0.01)
        lost.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lost
        asyncio.get_running_loop().call_later(0.05, go_on.set)

        again = await shop.ask(headers=self.headers("lost"))

        assert again.json["choices"][0]["message"]["content"] == "ab"
        assert len(seen) == 1

    async def test_the_key_with_another_request_is_refused(self, shop: Shop) -> None:
        shop.answers(GOOD)
        await shop.ask(headers=self.headers("other"))

        response = await shop.ask(shop.chat("other"), headers=self.headers("other"))

        assert (response.status, response.json["error"]["code"]) == (400, "idempotency_mismatch")

    async def test_a_refused_first_request_may_be_repeated(self, shop: Shop) -> None:
        seen = shop.answers(GOOD)
        nobodys = shop.chat(model="not-yet")
        assert (await shop.ask(nobodys, headers=self.headers("refused"))).status == 404

        assert (await shop.ask(nobodys, headers=self.headers("refused"))).status == 404
        assert seen == []


class TestAudit:
    async def test_the_books_agree_with_everything_above(self, shop: Shop) -> None:
        await shop.idle()
        assert await audit(shop.post.core.db) == []
