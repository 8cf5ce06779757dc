"""OpenAI's own Python SDK as client: what it understands of our answers, raises of our errors, and retries."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pydantic
import pytest
import pytest_asyncio
from openai import AsyncOpenAI, OpenAI

from tests.dialects.openai.shop import MODEL, ROLE, STOP, Shop
from tests.dialects.openai.test_embeddings import VECTOR, vectors
from tests.dialects.openai.test_failures import GOOD, refuses
from tests.worker.openai_stand_in import Answer, Request, delta, usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES: Any = [{"role": "user", "content": "hi"}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


@pytest_asyncio.fixture(loop_scope="module")
async def client(shop: Shop) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=shop.url + "/v1", api_key=shop.post.buyer_key, max_retries=0) as made:
        yield made


@pytest.fixture
def sync_client(shop: Shop) -> Iterator[OpenAI]:
    with OpenAI(base_url=shop.url + "/v1", api_key=shop.post.buyer_key, max_retries=0) as made:
        yield made


def tool_call_stream(shop: Shop) -> None:
    begin = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    shop.says(
        ROLE,
        delta({"tool_calls": [begin]}),
        delta({"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}),
        delta({"tool_calls": [{"index": 0, "function": {"arguments": '"Bern"}'}}]}),
        delta({}, finish_reason="tool_calls"),
        usage(9, 12),
    )


class TestChat:
    async def test_whole(self, shop: Shop, client: AsyncOpenAI) -> None:
        shop.answers(GOOD)

        made = await client.chat.completions.create(model=MODEL, messages=MESSAGES)

        assert made.choices[0].message.content == "ok"
        assert made.usage is not None and made.usage.total_tokens == 6
        assert made._request_id is not None and made._request_id.startswith("req_")

    async def test_stream_with_usage(self, shop: Shop, client: AsyncOpenAI) -> None:
        shop.says(ROLE, delta({"content": "a"}), delta({"content": "b"}), STOP, usage(5, 2))

        stream = await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]

        assert [chunk.choices[0].delta.content for chunk in chunks[:-1]] == ["", "a", "b", None]
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].choices == [] and chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 7

    async def test_the_stream_helper_puts_tool_calls_together(self, shop: Shop, client: AsyncOpenAI) -> None:
        tool_call_stream(shop)

        async with client.chat.completions.stream(model=MODEL, messages=MESSAGES, tools=TOOLS) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_completion()

        call = final.choices[0].message.tool_calls[0]  # type: ignore[index]
        assert (call.id, call.function.name, call.function.arguments) == ("call_1", "weather", '{"city":"Bern"}')
        assert (final.choices[0].finish_reason, final.choices[0].message.content) == ("tool_calls", None)

    async def test_tool_calls_whole(self, shop: Shop, client: AsyncOpenAI) -> None:
        tool_call_stream(shop)

        made = await client.chat.completions.create(model=MODEL, messages=MESSAGES, tools=TOOLS)

        call: Any = made.choices[0].message.tool_calls[0]  # type: ignore[index]
        assert (call.id, call.type, call.function.arguments) == ("call_1", "function", '{"city":"Bern"}')

    async def test_structured_output_is_parsed(self, shop: Shop, client: AsyncOpenAI) -> None:
        class City(pydantic.BaseModel):
            name: str

        seen = shop.says(ROLE, delta({"content": '{"name":'}), delta({"content": '"Bern"}'}), STOP, usage(5, 2))

        made = await client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=City)

        assert made.choices[0].message.parsed == City(name="Bern")
        assert seen[0].json["response_format"]["type"] == "json_schema"

    async def test_logprobs(self, shop: Shop, client: AsyncOpenAI) -> None:
        entry = {
            "token": "a",
            "logprob": -0.5,
            "bytes": [97],
            "top_logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97]}],
        }
        shop.says(ROLE, delta({"content": "a"}, logprobs={"content": [entry], "refusal": None}), STOP, usage(5, 1))

        made = await client.chat.completions.create(model=MODEL, messages=MESSAGES, logprobs=True, top_logprobs=1)

        assert made.choices[0].logprobs is not None and made.choices[0].logprobs.content is not None
        assert made.choices[0].logprobs.content[0].top_logprobs[0].logprob == -0.5

    async def test_leaving_a_stream_cancels_the_job(self, shop: Shop, client: AsyncOpenAI) -> None:
        async def talk(_: Request, answer: Answer) -> None:
            answer.begin_stream()
            while True:
                await answer.piece(b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n')
                await asyncio.sleep(0.005)

        shop.answers(talk)
        stream = await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_completion_tokens=100_000, stream=True
        )
        async for _ in stream:
            break
        await stream.close()

        async with asyncio.timeout(2):
            await shop.upstream.gone.wait()
        await shop.idle()

    async def test_the_synchronous_client(self, shop: Shop, sync_client: OpenAI) -> None:
        def use() -> tuple[str | None, str]:
            made = sync_client.chat.completions.create(model=MODEL, messages=MESSAGES)
            stream = sync_client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
            return made.choices[0].message.content, "".join(chunk.choices[0].delta.content or "" for chunk in stream)

        shop.answers(GOOD)

        assert await asyncio.to_thread(use) == ("ok", "ok")


class TestOthers:
    async def test_completions(self, shop: Shop, client: AsyncOpenAI) -> None:
        shop.says({"choices": [{"index": 0, "text": "ab", "finish_reason": "stop"}]}, usage(1, 1))

        made = await client.completions.create(model=MODEL, prompt="x")
        streamed = await client.completions.create(model=MODEL, prompt="x", stream=True)

        assert made.choices[0].text == "ab"
        assert "".join([chunk.choices[0].text async for chunk in streamed]) == "ab"

    async def test_embeddings_come_as_base64_by_themselves(self, shop: Shop, client: AsyncOpenAI) -> None:
        seen = shop.answers(vectors(VECTOR))

        made = await client.embeddings.create(model="embed-small", input=["x"])

        assert made.data[0].embedding == VECTOR
        assert made.usage.prompt_tokens == 4
        assert seen[0].json["encoding_format"] == "base64"

    async def test_models(self, shop: Shop, client: AsyncOpenAI) -> None:
        listed = [model.id async for model in client.models.list()]

        assert sorted(listed) == ["embed-small", MODEL]
        assert (await client.models.retrieve(MODEL)).owned_by == "comptoir"


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, openai.BadRequestError),
            (422, openai.UnprocessableEntityError),
            (429, openai.RateLimitError),
            (500, openai.InternalServerError),
        ],
    )
    async def test_an_engines_refusal_becomes_its_class(
        self, shop: Shop, client: AsyncOpenAI, status: int, kind: type[openai.APIStatusError]
    ) -> None:
        shop.answers(refuses(status, {"error": {"message": "no", "type": "t", "param": "p", "code": "c"}}))

        with pytest.raises(kind) as raised:
            await client.chat.completions.create(model=MODEL, messages=MESSAGES)

        assert (raised.value.type, raised.value.param, raised.value.code) == ("t", "p", "c")
        assert raised.value.request_id is not None

    async def test_ours_do_too(self, shop: Shop, client: AsyncOpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as missing:
            await client.chat.completions.create(model="gpt-9", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError) as bad:
            await client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=9)
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="ck_" + "x" * 43).models.list()

        assert (missing.value.code, bad.value.param) == ("model_not_found", "temperature")

    async def test_an_error_mid_stream_is_raised(self, shop: Shop, client: AsyncOpenAI) -> None:
        shop.says(ROLE, delta({"content": "a"}), {"error": {"message": "boom"}})
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        chunks = aiter(stream)

        texts = [(await anext(chunks)).choices[0].delta.content for _ in range(2)]
        with pytest.raises(openai.APIError, match="boom"):
            await anext(chunks)

        assert texts == ["", "a"]

    async def test_a_busy_engine_is_tried_again_when_it_said(self, shop: Shop, client: AsyncOpenAI) -> None:
        tries = []

        async def handle(request: Request, answer: Answer) -> None:
            tries.append(asyncio.get_running_loop().time())
            if len(tries) == 1:
                await refuses(429, {"error": {"message": "busy"}}, retry_after_ms="700")(request, answer)
            else:
                await GOOD(request, answer)

        shop.answers(handle)

        made = await client.with_options(max_retries=2).chat.completions.create(model=MODEL, messages=MESSAGES)

        assert made.choices[0].message.content == "ok"
        assert len(tries) == 2
        assert tries[1] - tries[0] > 0.65, "by itself the SDK waits half a second at most"

    async def test_missing_money_is_not_tried_again(self, shop: Shop, client: AsyncOpenAI) -> None:
        tries = []

        async def note(request: Any) -> None:
            tries.append(request.url.path)

        async with openai.DefaultAsyncHttpxClient(event_hooks={"request": [note]}) as http:
            poor = client.with_options(api_key=shop.post.admin_key, max_retries=2, http_client=http)
            with pytest.raises(openai.APIStatusError) as raised:
                await poor.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=100_000, n=5)

        assert (raised.value.status_code, raised.value.code) == (402, "insufficient_quota")
        assert tries == ["/v1/chat/completions"]
