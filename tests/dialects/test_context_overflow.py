"""A request beyond the context is the buyer's error with the numbers, whoever finds out: routing or the engine."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from tests.dialects.openai.shop import Shop, open_shop
from tests.worker.openai_stand_in import Answer, Request, sse, stream_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "up/model-32k"
CONTEXT = 32_768
MODELS = {"data": [{"id": MODEL, "max_model_len": CONTEXT}, {"id": "embed-8k", "max_model_len": 8192}]}
LONG = "word " * 60_000
"""300 kB, which routing takes for 50,000 tokens."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path_factory.mktemp("shop"), models=MODELS) as opened:
        yield opened


def chat(text: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}


class TestFoundByRouting:
    @pytest.mark.parametrize(
        ("path", "body", "param", "context"),
        [
            ("/v1/chat/completions", chat(LONG), "messages", CONTEXT),
            ("/v1/chat/completions", chat(LONG, max_tokens=40_000), "messages", CONTEXT),
            ("/v1/chat/completions", chat(max_tokens=40_000, stream=True), "max_tokens", CONTEXT),
            ("/v1/chat/completions", chat(max_completion_tokens=40_000), "max_completion_tokens", CONTEXT),
            ("/v1/completions", {"model": MODEL, "prompt": LONG}, "prompt", CONTEXT),
            ("/v1/completions", {"model": MODEL, "prompt": "x", "max_tokens": 40_000}, "max_tokens", CONTEXT),
            ("/v1/embeddings", {"model": "embed-8k", "input": LONG}, "input", 8192),
        ],
    )
    async def test_openais_error_names_what_is_too_large(
        self, shop: Shop, path: str, body: dict[str, Any], param: str, context: int
    ) -> None:
        seen = shop.answers(stream_of(sse()))

        response = await shop.call("POST", path, body)

        error = response.json["error"]
        assert (response.status, error["code"], error["param"]) == (400, "context_length_exceeded", param)
        assert error["type"] == "invalid_request_error"
        assert f"maximum context length is {context} tokens" in error["message"]
        assert "about" in error["message"] and (param != "max_tokens" or "40000" in error["message"])
        assert seen == []

    async def test_infrintia_says_it_in_its_own_shape(self, shop: Shop) -> None:
        response = await shop.call("POST", "/run/model", {"model": MODEL, "input_text": LONG, "max_tokens": 5})

        assert response.status == 422
        assert f"maximum context length is {CONTEXT} tokens" in response.json["detail"]

    async def test_the_native_api_says_it_in_its_own_shape(self, shop: Shop) -> None:
        body = {"kind": "chat", "model": MODEL, "body": chat(LONG), "output_max": 5}
        response = await shop.call("POST", "/house/jobs", body)

        assert (response.status, response.json["error"]["code"]) == (422, "ContextTooLong")

    async def test_another_thing_that_is_missing_is_still_said(self, shop: Shop) -> None:
        response = await shop.ask(chat(LONG, max_tokens=5) | {"model": "embed-8k"})

        assert response.json["error"]["code"] == "no_host_possible"


class TestSaidByTheEngine:
    @pytest.mark.parametrize(
        ("message", "param", "said"),
        [
            ("The input (50000 tokens) is longer than the model's context length (32768 tokens).", "messages", "50000"),
            (
                "'max_tokens' or 'max_completion_tokens' is too large: 32000. This model's maximum context length is 32768 "
                "tokens and your request has 900 input tokens",
                "max_tokens",
                "(900 in the messages, 32000 in the completion)",
            ),
        ],
    )
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_it_is_the_same_error(self, shop: Shop, message: str, param: str, said: str, streamed: bool) -> None:
        async def refuse(_: Request, answer: Answer) -> None:
            await answer.whole(400, msgspec.json.encode({"object": "error", "message": message, "code": 400}))

        seen = shop.answers(refuse)
        response = await shop.ask(chat(max_tokens=32_000, stream=streamed))

        error = response.json["error"]
        assert (response.status, error["code"], error["param"]) == (400, "context_length_exceeded", param)
        assert said in error["message"] and "maximum context length is 32768 tokens" in error["message"]
        assert len(seen) == 1

    async def test_an_error_event_before_the_answer_is_the_same(self, shop: Shop) -> None:
        event = {
            "error": {"message": "The input (50000 tokens) is longer than the model's context length (32768 tokens)."}
        }
        shop.answers(stream_of(sse(event)))

        response = await shop.ask(chat(max_tokens=50))

        assert (response.status, response.json["error"]["code"]) == (400, "context_length_exceeded")

    async def test_a_bound_that_only_we_set_is_left_out_for_this_request_alone(self, shop: Shop) -> None:
        async def refuse(asked: Request, answer: Answer) -> None:
            if "max_tokens" in asked.json:
                said = "'max_tokens' is too large: 32768. This model's maximum context length is 32768 tokens"
                await answer.whole(400, msgspec.json.encode({"message": said}))
            else:
                await stream_of(sse(*ANSWER))(asked, answer)

        seen = shop.answers(refuse)
        asked = {"model": MODEL, "prompt": "hi"}
        answers = [await shop.call("POST", "/v1/completions", asked) for _ in range(2)]

        assert [one.status for one in answers] == [200, 200]
        assert ["max_tokens" in one.json for one in seen] == [True, False, True, False]


ANSWER = [
    {"choices": [{"index": 0, "delta": {"content": "ok"}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]
