"""``usage.cost``: what was paid for an answer, said with it, whatever an engine says of cost."""

import re
from typing import Any

import msgspec
import pytest

from tests.dialects.openai.shop import MODEL, ROLE, STOP, Shop
from tests.worker.openai_stand_in import Answer, Handler, Request, delta, sse, stream_of, usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}
TEXT = {"model": MODEL, "prompt": "hi", "max_tokens": 50}


def says(count: int, **lies: Any) -> Handler:
    return stream_of(sse(ROLE, *[delta({"content": "a"})] * count, STOP, usage(7, count, **lies)))


def completes(**lies: Any) -> Handler:
    piece = {"choices": [{"index": 0, "text": "ab", "finish_reason": "stop"}]}
    return stream_of(sse(piece, usage(3, 1, **lies)))


def vectors(**lies: Any) -> Handler:
    async def handle(_: Request, answer: Answer) -> None:
        data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        counted = {"prompt_tokens": 4, "total_tokens": 4, **lies}
        await answer.whole(200, msgspec.json.encode({"object": "list", "model": "e", "data": data, "usage": counted}))

    return handle


CASES: dict[str, tuple[str, dict[str, Any], Any, int]] = {
    "chat": ("/v1/chat/completions", CHAT, says(5), 507),
    "chat, streamed": ("/v1/chat/completions", {**CHAT, **STREAMED}, says(5), 507),
    "a long chat, streamed": ("/v1/chat/completions", {**CHAT, **STREAMED}, says(50), 5_007),
    "no word, streamed": ("/v1/chat/completions", {**CHAT, **STREAMED}, says(0), 0),
    "completion": ("/v1/completions", TEXT, completes(), 103),
    "completion, streamed": ("/v1/completions", {**TEXT, **STREAMED}, completes(), 103),
    "embedding": ("/v1/embeddings", {"model": "embed-small", "input": "hi"}, vectors(), 4),
    "an engine that says another cost": (
        "/v1/chat/completions", {**CHAT, **STREAMED}, says(5, cost=99, cost_details={"upstream": 1}), 507,
    ),
    "an engine that says another cost of vectors": (
        "/v1/embeddings", {"model": "embed-small", "input": "hi"}, vectors(cost=99), 4,
    ),
}  # fmt: skip


class TestCost:
    @pytest.mark.parametrize("case", CASES)
    async def test_it_is_what_left_the_account(self, shop: Shop, case: str) -> None:
        path, body, handler, expected_uusd = CASES[case]
        shop.answers(handler)
        before, _ = await shop.balance()

        response = await shop.call("POST", path, body)

        # The answer is whole only when its job is settled, so nothing is waited for.
        after, held = await shop.balance()
        assert (response.status, before - after, held) == (200, expected_uusd, 0)
        (cost,) = re.findall(rb'"cost":([^,}]+)', response.body)
        assert cost.decode() == (f"0.{expected_uusd:06}".rstrip("0") if expected_uusd else "0.0")
        if body.get("stream"):
            *_, last, done = response.events
            assert (done, last["choices"], "cost" in last["usage"]) == ("[DONE]", [], True)
            assert [event["usage"] for event in response.events[:-2]] == [None] * (len(response.events) - 2)

    async def test_a_stream_that_is_not_asked_for_usage_says_none(self, shop: Shop) -> None:
        shop.answers(says(2))
        assert b'"cost"' not in (await shop.ask({**CHAT, "stream": True})).body

    async def test_a_repeat_says_the_same_and_costs_nothing(self, shop: Shop) -> None:
        shop.answers(says(3))
        headers = {"Idempotency-Key": "cost"}
        first = await shop.ask({**CHAT, **STREAMED}, headers=headers)
        before = await shop.balance()
        again = await shop.ask({**CHAT, **STREAMED}, headers=headers)

        assert again.events[-2]["usage"] == first.events[-2]["usage"] and "cost" in first.events[-2]["usage"]
        assert await shop.balance() == before
