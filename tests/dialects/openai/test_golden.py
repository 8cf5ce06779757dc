"""The bytes on the wire, word for word."""

import re
import time

import pytest

from tests.dialects.openai.shop import MODEL, ROLE, STOP, Response, Shop
from tests.worker.openai_stand_in import delta, usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOB = re.compile(rb"(chatcmpl|cmpl)-[0-9a-f]{32}")
CREATED = re.compile(rb'"created":(\d+)')


def fixed(response: Response) -> str:
    """Return the body with id and time made constant, after checking that all chunks have the same."""
    ids, times = set(JOB.findall(response.body)), {int(at) for at in CREATED.findall(response.body)}
    assert len(set(re.findall(rb'"id":"[a-z]*-[0-9a-f]+"', response.body))) == 1
    assert len(ids) == 1 and len(times) == 1
    assert abs(times.pop() - time.time()) < 60
    assert JOB.search(response.body)[0].split(b"-")[1].decode() == response.headers["x-comptoir-job"][4:]  # type: ignore[index]
    return CREATED.sub(b'"created":1', JOB.sub(rb"\1-ID", response.body)).decode()


def chunk(rest: str, *, tail: str = "]}") -> str:
    head = '{"id":"chatcmpl-ID","object":"chat.completion.chunk","created":1,"model":"up/model-7b","choices":['
    return f"data: {head}{rest}{tail}\n\n"


class TestChatStream:
    async def test_text(self, shop: Shop) -> None:
        shop.says(ROLE, delta({"content": "Hel"}), delta({"content": 'lo "ü"\n'}), STOP, usage(5, 2))

        response = await shop.ask(shop.chat(stream=True))

        assert fixed(response) == (
            chunk('{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}')
            + chunk('{"index":0,"delta":{"content":"Hel"},"logprobs":null,"finish_reason":null}')
            + chunk('{"index":0,"delta":{"content":"lo \\"ü\\"\\n"},"logprobs":null,"finish_reason":null}')
            + chunk('{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}')
            + "data: [DONE]\n\n"
        )
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in response.headers

    async def test_usage_chunk(self, shop: Shop) -> None:
        shop.says(
            ROLE,
            delta({"content": "a"}),
            STOP,
            usage(5, 1, prompt_tokens_details={"cached_tokens": 4}, completion_tokens_details={"reasoning_tokens": 0}),
        )

        response = await shop.ask(shop.chat(stream=True, stream_options={"include_usage": True}))

        tail = '],"usage":null}'
        assert fixed(response) == (
            chunk(
                '{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}', tail=tail
            )
            + chunk('{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}', tail=tail)
            + chunk('{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}', tail=tail)
            + chunk(
                "",
                tail='],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6,"cost":0.000105,'
                '"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":0}}}',
            )
            + "data: [DONE]\n\n"
        )

    async def test_tool_calls(self, shop: Shop) -> None:
        first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
        shop.says(
            ROLE,
            delta({"tool_calls": [first]}),
            delta({"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}),
            # A server that forgets the index: clients could not tell whose fragment this is.
            delta({"tool_calls": [{"function": {"arguments": '"Bern"}'}}]}),
            delta({}, finish_reason="tool_calls"),
            usage(5, 9),
        )

        response = await shop.ask(shop.chat(stream=True))

        said = '{"index":0,"delta":{"tool_calls":[%s]},"logprobs":null,"finish_reason":null}'
        whole = '{"index":0,"id":"call_1","type":"function","function":{"name":"weather","arguments":""}}'
        assert fixed(response) == (
            chunk('{"index":0,"delta":{"role":"assistant","content":null},"logprobs":null,"finish_reason":null}')
            + chunk(said % whole)
            + chunk(said % '{"index":0,"function":{"arguments":"{\\"city\\":"}}')
            + chunk(said % '{"function":{"arguments":"\\"Bern\\"}"},"index":0}')
            + chunk('{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}')
            + "data: [DONE]\n\n"
        )

    async def test_several_choices_and_logprobs(self, shop: Shop) -> None:
        shop.says(
            ROLE,
            delta({"content": "a"}, logprobs={"content": [{"token": "a", "logprob": -0.5, "top_logprobs": []}]}),
            delta({"content": "b"}, index=1),
            delta({}, index=1, finish_reason="length"),
            STOP,
            usage(5, 2),
        )

        response = await shop.ask(shop.chat(stream=True, n=2, logprobs=True))

        role = '{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        probabilities = '{"content":[{"token":"a","logprob":-0.5,"top_logprobs":[]}]}'
        assert fixed(response) == (
            chunk(role % 0)
            + chunk('{"index":0,"delta":{"content":"a"},"logprobs":' + probabilities + ',"finish_reason":null}')
            + chunk(role % 1)
            + chunk('{"index":1,"delta":{"content":"b"},"logprobs":null,"finish_reason":null}')
            + chunk('{"index":1,"delta":{},"logprobs":null,"finish_reason":"length"}')
            + chunk('{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}')
            + "data: [DONE]\n\n"
        )

    async def test_an_empty_answer_has_a_role_and_an_end(self, shop: Shop) -> None:
        shop.says(ROLE, STOP, usage(5, 0))

        events = (await shop.ask(shop.chat(stream=True))).events

        assert [choice["choices"][0]["delta"] for choice in events[:-1]] == [{"role": "assistant", "content": ""}, {}]
        assert events[-1] == "[DONE]"


class TestChatWhole:
    async def test_text(self, shop: Shop) -> None:
        shop.says(ROLE, delta({"content": "Hel"}), delta({"content": "lo"}), STOP, usage(5, 2, foo={"bar": 1}))

        response = await shop.ask()

        assert fixed(response) == (
            '{"id":"chatcmpl-ID","object":"chat.completion","created":1,"model":"up/model-7b","choices":[{"index":0,'
            '"message":{"role":"assistant","content":"Hello","refusal":null},"logprobs":null,"finish_reason":"stop"}],'
            '"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7,"cost":0.000205,"foo":{"bar":1}}}'
        )
        # Two tokens at $100 and five prompt tokens at $1 per million.
        assert response.headers["x-comptoir-cost-uusd"] == "205"
        assert response.headers["x-comptoir-receipt"] == "rcpt_" + response.headers["x-comptoir-job"][4:]

    async def test_everything_is_put_together(self, shop: Shop) -> None:
        shop.says(
            ROLE, delta({"reasoning_content": "I th"}), delta({"reasoning_content": "ink"}),
            delta({"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{"}}]}),
            delta({"tool_calls": [{"index": 1, "id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}}]}),
            delta({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}, {"index": 1, "function": {"arguments": "[]"}}]}),
            delta({"content": "b"}, index=1, logprobs={"content": [{"token": "b"}]}),
            delta({"content": "c"}, index=1, logprobs={"content": [{"token": "c"}]}, finish_reason="length"),
            delta({}, finish_reason="tool_calls"), usage(5, 20),
        )  # fmt: skip

        body = (await shop.ask(shop.chat(n=2))).json

        assert body["choices"] == [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None,
                    "refusal": None,
                    "reasoning_content": "I think",
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "[]"}},
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            },
            {
                "index": 1,
                "message": {"role": "assistant", "content": "bc", "refusal": None},
                "logprobs": {"content": [{"token": "b"}, {"token": "c"}]},
                "finish_reason": "length",
            },
        ]
        assert body["usage"]["completion_tokens"] == 20


class TestCompletion:
    def text(self, text: str, **fields: object) -> dict[str, object]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": None, **fields}
        return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": MODEL, "choices": [choice]}

    async def test_stream(self, shop: Shop) -> None:
        seen = shop.says(self.text("a"), self.text("b"), self.text("", finish_reason="length"), usage(1, 2))

        response = await shop.call("POST", "/v1/completions", {"model": MODEL, "prompt": "x", "stream": True})

        head = 'data: {"id":"cmpl-ID","object":"text_completion","created":1,"model":"up/model-7b","choices":['
        assert fixed(response) == (
            head
            + '{"index":0,"text":"a","logprobs":null,"finish_reason":null}]}\n\n'
            + head
            + '{"index":0,"text":"b","logprobs":null,"finish_reason":null}]}\n\n'
            + head
            + '{"index":0,"text":"","logprobs":null,"finish_reason":"length"}]}\n\n'
            + "data: [DONE]\n\n"
        )
        assert (seen[0].path, seen[0].json["max_tokens"]) == ("/v1/completions", 16)

    async def test_whole_with_logprobs_and_several_prompts(self, shop: Shop) -> None:
        seen = shop.says(
            self.text("a", logprobs={"tokens": ["a"], "token_logprobs": [-1.0], "text_offset": [0]}),
            self.text("b", logprobs={"tokens": ["b"], "token_logprobs": [-2.0], "text_offset": [1]}),
            self.text("c", index=1),
            self.text("", index=1, finish_reason="stop"),
            self.text("", finish_reason="stop"),
            usage(2, 3),
        )

        response = await shop.call("POST", "/v1/completions", {"model": MODEL, "prompt": ["x", "y"], "logprobs": 0})

        assert response.json["choices"] == [
            {
                "index": 0,
                "text": "ab",
                "finish_reason": "stop",
                "logprobs": {"tokens": ["a", "b"], "token_logprobs": [-1.0, -2.0], "text_offset": [0, 1]},
            },
            {"index": 1, "text": "c", "finish_reason": "stop", "logprobs": None},
        ]
        assert seen[0].json["max_tokens"] == 16


class TestModels:
    async def test_list(self, shop: Shop) -> None:
        body = (await shop.call("GET", "/v1/models")).json

        assert body["object"] == "list"
        by_id = {model["id"]: model for model in body["data"]}
        created = by_id[MODEL].pop("created")
        assert abs(created - time.time()) < 60
        assert by_id[MODEL] == {
            "id": MODEL,
            "object": "model",
            "owned_by": "comptoir",
            "context_length": 1_000_000,
            "kinds": ["chat", "completion"],
            "hosts": 1,
            "price_in_uusd_per_mtok": 1_000_000,
            "price_out_uusd_per_mtok": 100_000_000,
            "capabilities": {},
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
            "supported_parameters": [
                "max_tokens", "temperature", "top_p", "stop", "seed", "frequency_penalty", "presence_penalty",
            ],
        }  # fmt: skip
        embed = by_id["embed-small"]
        assert (embed["kinds"], embed["supported_parameters"]) == (["embedding"], [])
        assert embed["architecture"]["output_modalities"] == ["embeddings"]

    async def test_one_whose_name_has_a_slash(self, shop: Shop) -> None:
        listed = (await shop.call("GET", "/v1/models")).json["data"]

        response = await shop.call("GET", "/v1/models/up/model-7b")

        assert response.status == 200
        assert response.json in listed

    async def test_one_nobody_has(self, shop: Shop) -> None:
        response = await shop.call("GET", "/v1/models/gpt-9")

        assert (response.status, response.json["error"]["code"]) == (404, "model_not_found")
        assert response.json["error"]["type"] == "invalid_request_error"
