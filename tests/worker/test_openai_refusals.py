"""What an OpenAI-compatible server refuses, and what becomes of it: our own fields, and requests that are too long."""

import msgspec
import pytest

from comptoir.link import Frame, Usage
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish
from comptoir.worker.engines.openai import OpenAIEngine
from tests.worker.openai_play import MODEL, STOP, fail, play, request
from tests.worker.openai_stand_in import Answer, Handler, OpenAIStandIn, Request, delta, sse, stream_of

HI = sse(delta({"content": "hi"}), STOP)


WHOLE = {
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}


def refusing(fields: dict[str, tuple[int, bytes]]) -> Handler:
    """Refuse requests with one of *fields* by its status and body; answer all others."""

    async def handle(asked: Request, answer: Answer) -> None:
        for name, (status, body) in fields.items():
            if name in asked.json:
                await answer.whole(status, body)
                return
        await stream_of(HI)(asked, answer)

    return handle


class TestFieldsOfOurs:
    """What we add to a request may be unknown to a server; that must never be the buyer's error."""

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (400, b'{"error":{"message":"unknown field \\"stream_options\\"","type":"invalid_request_error"}}'),
            (400, b'{"error":{"message":"Unrecognized request argument supplied: stream_options","code":null}}'),
            (422, b'{"detail":[{"loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}'),
            (422, b'{"detail":[{"loc":["body","stream_options","include_usage"],"msg":"extra fields not permitted"}]}'),
            (400, b'{"error":"json: unknown field \\"include_usage\\""}'),
            (400, b'{"message":"unknown field"}'),
        ],
    )  # fmt: skip
    async def test_a_server_that_refuses_stream_options_is_asked_without_from_then_on(
        self, server: OpenAIStandIn, engine: OpenAIEngine, status: int, body: bytes
    ) -> None:
        server.handler = refusing({"stream_options": (status, body)})

        for _ in range(2):
            assert await play(engine) == ([Frame("hi")], Finish("stop", Usage(completion_tokens=1)))

        assert ["stream_options" in asked.json for asked in server.requests] == [True, False, False]

    async def test_the_buyers_own_stream_options_stay(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        async def handle(asked: Request, answer: Answer) -> None:
            if "include_usage" in asked.json["stream_options"]:
                await answer.whole(400, b'{"error":"unknown field include_usage"}')
            else:
                await stream_of(HI)(asked, answer)

        server.handler = handle
        await play(engine, request(stream_options={"other": 1}))

        assert server.requests[-1].json["stream_options"] == {"other": 1}

    async def test_a_buyer_who_asks_for_usage_gets_it_from_us(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        server.handler = refusing({"stream_options": (400, b'{"error":"unknown field stream_options"}')})

        for _ in range(2):
            await play(engine, request(stream=True, stream_options={"include_usage": True}))

        assert ["stream_options" in asked.json for asked in server.requests] == [True, False, False]

    @pytest.mark.parametrize(
        "said",
        [
            "Unsupported value: 'stream' does not support true with this model. Only the default (false) is supported.",
            "Streaming is not supported by this model",
        ],
    )
    async def test_a_server_that_does_not_stream_is_asked_for_the_whole(
        self, server: OpenAIStandIn, engine: OpenAIEngine, said: str
    ) -> None:
        async def handle(asked: Request, answer: Answer) -> None:
            if asked.json.get("stream"):
                await answer.whole(400, msgspec.json.encode({"error": {"message": said}}))
            elif "stream_options" in asked.json:
                await answer.whole(400, b'{"error":"stream_options without stream"}')
            else:
                await answer.whole(200, msgspec.json.encode(WHOLE))

        server.handler = handle

        for _ in range(2):
            frames, finish = await play(engine, request(stream=True, stream_options={"include_usage": True}))
            assert ("".join(frame.text for frame in frames), finish.finish_reason) == ("hi", "stop")

        assert [asked.json.get("stream") for asked in server.requests] == [True, None, None]

    async def test_streaming_is_not_given_up_for_what_a_buyer_asked_beside_it(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        server.handler = refusing({"best_of": (400, b'{"error":"best_of is not supported with stream"}')})

        _, error = await fail(engine, request("completion", prompt="x", best_of=3))

        assert (error.fault, len(server.requests)) == ("buyer", 1)

    async def test_a_bound_of_ours_is_left_out_and_kept_by_the_worker(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        said = b'{"error":{"message":"Unsupported parameter: \'max_tokens\'. Use \'max_completion_tokens\' instead."}}'
        server.handler = refusing({"max_tokens": (400, said), "stream_options": (400, b'{"error":"extra inputs"}')})
        bounded = EngineRequest(kind="chat", model=MODEL, body=b'{"model":"m"}', max_tokens=7)

        for _ in range(2):
            await play(engine, bounded)

        asked = [sorted({"max_tokens", "stream_options"} & set(one.json)) for one in server.requests]
        assert asked == [["max_tokens", "stream_options"], ["stream_options"], [], []]

    @pytest.mark.parametrize(
        "said",
        [
            "'max_tokens' is too large: 60. This model's maximum context length is 60 tokens",
            "This model's maximum context length is 60 tokens. However, you requested 65 tokens (5 in the messages, 60 in "
            "the completion).",
            "Requested token count exceeds the model's maximum context length of 60 tokens.",
            "`inputs` tokens + `max_new_tokens` must be <= 60",
        ],
    )
    async def test_a_server_without_room_for_a_bound_is_left_to_end_by_itself(
        self, server: OpenAIStandIn, engine: OpenAIEngine, said: str
    ) -> None:
        """Others end after some hundred tokens if they are told no bound, so the first time one is told."""
        server.handler = refusing({"max_tokens": (400, msgspec.json.encode({"message": said}))})
        asked = EngineRequest("chat", MODEL, b'{"model":"m"}', max_tokens=60, open_ended=True)

        for _ in range(2):
            await play(engine, asked)

        assert [one.json.get("max_tokens") for one in server.requests] == [60, None, None]

    async def test_a_prompt_that_does_not_fit_is_refused_as_ever(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            await answer.whole(400, b'{"message":"the prompt is too long: 900 tokens > 60 maximum"}')

        server.handler = handle
        asked = EngineRequest("chat", MODEL, b'{"model":"m"}', max_tokens=60, open_ended=True)

        for _ in range(2):
            _, error = await fail(engine, asked)
            assert error.fault == "buyer"

        assert [one.json.get("max_tokens") for one in server.requests] == [60, None] * 2

    async def test_a_field_that_the_buyer_sent_is_the_buyers(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        server.handler = refusing({"max_tokens": (400, b'{"error":"unknown field max_tokens"}')})

        _, error = await fail(engine, request(max_tokens=5))

        assert (error.fault, error.status, len(server.requests)) == ("buyer", 400, 1)

    async def test_a_refusal_that_stays_without_ours_teaches_nothing(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            await answer.whole(400, b'{"error":"role may not be unknown stream_options"}')

        server.handler = handle
        _, error = await fail(engine)
        server.handler = stream_of(HI)
        await play(engine)

        assert error.fault == "buyer"
        assert ["stream_options" in asked.json for asked in server.requests] == [True, False, True]

    async def test_another_server_at_the_same_address_is_asked_anew(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        server.handler = refusing({"stream_options": (400, b'{"error":"unknown field stream_options"}')})
        await play(engine)
        server.models_status = 503
        with pytest.raises(EngineError):
            await engine.models()
        server.models_status = 200
        server.requests.clear()

        await play(engine)

        assert ["stream_options" in asked.json for asked in server.requests] == [True, False]
