"""The openai engine against a server that does all the things real ones do."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from comptoir.link import Frame, Usage
from comptoir.worker.engines import openai as openai_engine
from comptoir.worker.engines import sse as sse_parser
from comptoir.worker.engines.base import EngineError, EngineRequest, Finish
from comptoir.worker.engines.discovery import LocalServer, discover_local
from comptoir.worker.engines.openai import OpenAIEngine
from tests.worker.openai_stand_in import (
    Answer,
    OpenAIStandIn,
    Request,
    delta,
    serve_openai,
    sse,
    stream_of,
    usage,
)

MODEL = "up/model-7b"
ROLE = delta({"role": "assistant", "content": ""})
STOP = delta({}, finish_reason="stop")


@pytest_asyncio.fixture
async def server() -> AsyncIterator[OpenAIStandIn]:
    async with serve_openai() as stand_in:
        yield stand_in


@pytest_asyncio.fixture
async def engine(server: OpenAIStandIn) -> AsyncIterator[OpenAIEngine]:
    made = OpenAIEngine(base_url=server.base_url)
    await made.start()
    yield made
    await made.close()


def request(kind: str = "chat", model: str = MODEL, **fields: Any) -> EngineRequest:
    return EngineRequest(kind=kind, model=model, body=msgspec.json.encode({"model": "buyers-name", **fields}))


async def play(engine: OpenAIEngine, asked: EngineRequest | None = None) -> tuple[list[Frame], Finish]:
    """Run a request to its end."""
    items = [item async for item in engine.run(asked or request())]
    finish = items.pop()
    assert isinstance(finish, Finish)
    assert all(isinstance(item, Frame) for item in items)
    return [item for item in items if isinstance(item, Frame)], finish


async def fail(engine: OpenAIEngine, asked: EngineRequest | None = None) -> tuple[str, EngineError]:
    """Run a request that must fail; return the text before, and the error."""
    text = ""
    with pytest.raises(EngineError) as caught:
        async for item in engine.run(asked or request()):
            assert isinstance(item, Frame)
            text += item.text
    return text, caught.value


def extra(frame: Frame) -> Any:
    return msgspec.json.decode(frame.extra)


class TestStream:
    async def test_text_deltas_become_frames(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        server.handler = stream_of(
            sse(
                ROLE,
                delta({"content": "Hel"}),
                delta({"content": "lo"}),
                STOP,
                usage(5, 3, prompt_tokens_details={"c": 1}),
            )
        )

        frames, finish = await play(engine)

        # The server counts the end token, which no delta shows; what it counts is paid.
        assert frames == [Frame("Hel"), Frame("lo"), Frame("", 1)]
        assert (finish.finish_reason, finish.usage.prompt_tokens, finish.usage.completion_tokens) == ("stop", 5, 3)
        assert msgspec.json.decode(finish.usage.details)["prompt_tokens_details"] == {"c": 1}

    @pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
    @pytest.mark.parametrize("split", [1, 2, 3, 7, 64])
    async def test_pieces_may_end_at_any_byte(
        self, server: OpenAIStandIn, engine: OpenAIEngine, split: int, newline: bytes
    ) -> None:
        body = (
            b": ping"
            + newline
            + newline
            + sse(
                ROLE, delta({"content": "Grüße, 世界 🌍"}), delta({"content": "!"}), STOP, usage(1, 2), newline=newline
            )
        )
        server.handler = stream_of(body, split=split)

        frames, finish = await play(engine)

        assert "".join(frame.text for frame in frames) == "Grüße, 世界 🌍!"
        assert finish.usage.completion_tokens == 2

    async def test_tool_calls_pass_through(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        first = {
            "tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]
        }
        second = {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]}
        server.handler = stream_of(
            sse(
                delta({"role": "assistant", "content": None, **first}),
                delta(second),
                delta({}, finish_reason="tool_calls"),
                usage(1, 2),
            )
        )

        frames, finish = await play(engine)

        assert [extra(frame) for frame in frames] == [{"delta": first}, {"delta": second}]
        assert [(frame.text, frame.tokens) for frame in frames] == [("", 1), ("", 1)]
        assert finish.finish_reason == "tool_calls"

    async def test_reasoning_and_unknown_delta_fields_pass_through(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        server.handler = stream_of(
            sse(
                delta({"reasoning_content": "hm", "content": None, "refusal": None, "tool_calls": []}),
                delta({"content": "x", "annotations": [{"a": 1}]}),
                STOP,
            )
        )

        frames, _ = await play(engine)

        assert (frames[0].text, extra(frames[0])) == ("", {"delta": {"reasoning_content": "hm"}})
        assert (frames[1].text, extra(frames[1])) == ("x", {"delta": {"annotations": [{"a": 1}]}})

    async def test_logprobs_pass_through_exactly_and_count_tokens(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        raw = '{"content":[{"token":"a","logprob":-0.10000000000000001},{"token":"b","logprob":-1e-7}]}'
        chunk = b'{"choices":[{"index":0,"delta":{"content":"ab"},"logprobs":' + raw.encode() + b"}]}"
        server.handler = stream_of(sse(chunk, STOP))

        frames, _ = await play(engine)

        assert frames == [Frame("ab", 2, b'{"logprobs":' + raw.encode() + b"}")]

    async def test_further_choices_carry_their_index_and_finish(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        server.handler = stream_of(
            sse(
                delta({"role": "assistant"}),
                delta({"role": "assistant"}, index=1),
                delta({"content": "a"}),
                delta({"content": "b"}, index=1),
                delta({}, index=1, finish_reason="length"),
                STOP,
                usage(1, 4),
            )
        )

        frames, finish = await play(engine, request(n=2))

        assert frames == [
            Frame("a"),
            Frame("b", 1, b'{"index":1}'),
            Frame("", 0, b'{"finish_reason":"length","index":1}'),
            Frame("", 2),
        ]
        assert finish.finish_reason == "stop"

    async def test_a_finish_reason_may_come_with_the_last_text(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        server.handler = stream_of(sse(delta({"content": "a"}, finish_reason="length")))

        frames, finish = await play(engine)

        assert (frames, finish.finish_reason) == ([Frame("a")], "length")

    async def test_tokens_the_deltas_did_not_show_are_counted_at_the_end(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        """Speculative decoding puts several tokens into one delta; the host is paid for all of them."""
        server.handler = stream_of(sse(delta({"content": "four tokens here ok"}), STOP, usage(1, 5)))

        frames, _ = await play(engine)

        assert frames == [Frame("four tokens here ok"), Frame("", 4)]

    async def test_a_server_that_counted_fewer_is_billed_by_its_count(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        server.handler = stream_of(sse(delta({"content": "a"}), delta({"content": "b"}), STOP, usage(1, 1)))

        frames, finish = await play(engine)

        assert finish.usage.billed(sum(frame.tokens for frame in frames)) == 1

    async def test_without_usage_the_deltas_are_the_count(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        server.handler = stream_of(sse(delta({"content": "a"}), delta({"content": "b"}), STOP))

        frames, finish = await play(engine)

        assert frames == [Frame("a"), Frame("b")]
        assert finish.usage == Usage(completion_tokens=2)

    async def test_completions_are_text(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        server.handler = stream_of(
            sse(
                {
                    "object": "text_completion",
                    "choices": [{"index": 0, "text": "ab", "logprobs": None, "finish_reason": None}],
                },
                {"object": "text_completion", "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]},
                usage(2, 2),
            )
        )

        frames, finish = await play(engine, request("completion", prompt="x"))

        assert (frames, finish.finish_reason) == ([Frame("ab"), Frame("", 1)], "stop")
        assert server.requests[0].path == "/v1/completions"

    async def test_a_large_event_is_read_whole(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        big = "x" * 3_000_000
        server.handler = stream_of(sse(delta({"content": big}), STOP))

        frames, _ = await play(engine)

        assert frames == [Frame(big)]

    async def test_a_line_without_end_is_refused(
        self, server: OpenAIStandIn, engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sse_parser, "LINE_BYTES_MAX", 10_000)
        server.handler = stream_of(b"data: " + b"x" * 600_000)

        _, error = await fail(engine)

        assert (error.code, error.fault) == ("upstream_protocol", "host")


class TestRequest:
    async def test_everything_is_forwarded_but_the_model_and_the_stream(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        body = (
            b'{"model":"mine","messages":[{"role":"user","content":"\\u00fc"}],"top_k":5,"foo":{"bar":[1.10]},'
            b'"seed":123456789012345678901234567890,"stream":false,"stream_options":{"other":true}}'
        )

        await play(engine, EngineRequest(kind="chat", model=MODEL, body=body))

        sent = server.requests[0].body
        assert (
            b'"seed":123456789012345678901234567890' in sent and b'"foo":{"bar":[1.10]}' in sent and b"\\u00fc" in sent
        )
        fields = server.requests[0].json
        assert (fields["model"], fields["stream"]) == (MODEL, True)
        assert fields["stream_options"] == {"other": True, "include_usage": True}

    @pytest.mark.parametrize(
        ("fields", "sent"),
        [
            ({}, 60),
            ({"max_tokens": None}, 60),
            ({"max_tokens": 7}, 7),
            ({"max_completion_tokens": 7}, None),
            ({"n": 3}, 20),
            ({"n": 2, "prompt": ["a", "b", "c"]}, 10),
            ({"prompt": [1, 2, 3]}, 60),
        ],
    )
    async def test_the_houses_bound_is_sent_where_the_buyer_named_none(
        self, server: OpenAIStandIn, engine: OpenAIEngine, fields: dict[str, Any], sent: int | None
    ) -> None:
        await play(engine, EngineRequest(kind="chat", model=MODEL, body=msgspec.json.encode(fields), max_tokens=60))

        assert server.requests[0].json.get("max_tokens") == sent

    async def test_a_body_that_is_no_object_is_the_buyers_fault(self, engine: OpenAIEngine) -> None:
        _, error = await fail(engine, EngineRequest(kind="chat", model=MODEL, body=b"[1]"))

        assert error.fault == "buyer"

    async def test_a_prefix_is_refused(self, engine: OpenAIEngine) -> None:
        asked = EngineRequest(kind="chat", model=MODEL, body=b"{}", prefix=(Frame("a"),))

        _, error = await fail(engine, asked)

        assert (error.code, error.fault) == ("continuation_unsupported", "coordinator")

    async def test_the_api_key_is_sent(self, server: OpenAIStandIn) -> None:
        engine = OpenAIEngine(base_url=server.base_url + "/v1/", api_key="sk-x")
        await engine.start()
        await play(engine)
        await engine.close()

        assert server.requests[0].headers["authorization"] == "Bearer sk-x"

    async def test_a_connection_is_used_again(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        for _ in range(5):
            await play(engine)

        assert server.connections == 1

    async def test_a_multi_megabyte_prompt_goes_through(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        await play(engine, request(messages=[{"role": "user", "content": "x" * 3_000_000}]))

        assert len(server.requests[0].json["messages"][0]["content"]) == 3_000_000


class TestEmbeddings:
    async def test_the_list_is_one_frame_without_tokens(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            await answer.whole(
                200, b'{"object":"list","data":[{"embedding":[0.10,-2e-3],"index":0}],"usage":{"prompt_tokens":4}}'
            )

        server.handler = handle

        frames, finish = await play(engine, request("embedding", input="x", encoding_format="base64"))

        assert frames == [Frame("", 0, b'{"data":[{"embedding":[0.10,-2e-3],"index":0}]}')]
        assert (finish.usage.prompt_tokens, finish.usage.completion_tokens) == (4, 0)
        assert server.requests[0].json == {"model": MODEL, "input": "x", "encoding_format": "base64"}

    async def test_something_else_is_the_hosts_fault(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            await answer.whole(200, b'{"detail":"?"}')

        server.handler = handle

        _, error = await fail(engine, request("embedding", input="x"))

        assert (error.code, error.fault) == ("upstream_protocol", "host")


OPENAI_ERROR = b'{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":null}}'

REFUSALS = [
    # status, headers, body, fault, message, seconds to wait
    (400, {}, OPENAI_ERROR, "buyer", "too long", 0.0),
    (413, {}, OPENAI_ERROR, "buyer", "too long", 0.0),
    (422, {}, b'{"detail":[{"loc":["body"]}]}', "buyer", '[{"loc":["body"]}]', 0.0),
    (401, {}, OPENAI_ERROR, "host", "the engine's server refuses the worker's api key: too long", 0.0),
    (
        403,
        {},
        b"",
        "host",
        "the engine's server refuses the worker's api key: the engine's server answered HTTP 403",
        0.0,
    ),
    (404, {}, b'{"error":"model not found"}', "host", "model not found", 0.0),
    (405, {}, b"", "host", "the engine's server answered HTTP 405", 0.0),
    (302, {"Location": "http://127.0.0.1:1/"}, b"", "host", "the engine's server answered HTTP 302", 0.0),
    (429, {"Retry_After": "7"}, OPENAI_ERROR, "capacity", "too long", 7.0),
    (429, {"retry_after_ms": "250", "Retry_After": "7"}, OPENAI_ERROR, "capacity", "too long", 0.25),
    (429, {"Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT"}, OPENAI_ERROR, "capacity", "too long", 0.0),
    (429, {"Retry_After": "soon"}, OPENAI_ERROR, "capacity", "too long", 0.0),
    (429, {"Retry_After": "99999999"}, OPENAI_ERROR, "capacity", "too long", 3600.0),
    (503, {"Retry_After": "1.5"}, b"loading", "capacity", "the engine's server answered HTTP 503", 1.5),
    (500, {}, b'{"message":"cuda"}', "host", "cuda", 0.0),
    (502, {}, b"<html>", "host", "the engine's server answered HTTP 502", 0.0),
]


class TestRefusal:
    @pytest.mark.parametrize(("status", "headers", "body", "fault", "message", "retry_after_s"), REFUSALS)
    async def test_a_status_is_attributed(
        self,
        server: OpenAIStandIn,
        engine: OpenAIEngine,
        status: int,
        headers: dict[str, str],
        body: bytes,
        fault: str,
        message: str,
        retry_after_s: float,
    ) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            await answer.whole(status, body, **headers)

        server.handler = handle

        _, error = await fail(engine)

        assert (error.fault, error.status, error.message) == (fault, status, message)
        assert (error.body, error.retry_after_s) == (body, retry_after_s)

    async def test_a_body_beyond_the_bound_is_left_out(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            await answer.whole(400, b'{"error":"' + b"x" * 100_000 + b'"}')

        server.handler = handle

        _, error = await fail(engine)

        assert (error.fault, error.body) == ("buyer", b"")

    async def test_nobody_there_is_the_hosts_fault(self, server: OpenAIStandIn) -> None:
        engine = OpenAIEngine(base_url=server.base_url)
        await engine.start()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            engine._base = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
            _, error = await fail(engine)
        await engine.close()

        assert (error.code, error.fault) == ("upstream_unreachable", "host")

    async def test_a_server_that_does_not_stream_is_said(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            await answer.whole(200, b"{}")

        server.handler = handle

        _, error = await fail(engine)

        assert (error.code, error.fault) == ("upstream_protocol", "host")

    async def test_silence_before_the_answer_times_out(
        self, server: OpenAIStandIn, engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            await asyncio.Event().wait()

        server.handler = handle
        monkeypatch.setattr(openai_engine, "FIRST_BYTE_TIMEOUT_S", 0.02)

        _, error = await fail(engine)

        assert (error.code, error.fault) == ("upstream_timeout", "host")


class TestBrokenStream:
    @pytest.mark.parametrize(
        "event",
        [
            b'{"error":{"message":"CUDA out of memory","type":"server_error","code":500}}',
            b'{"object":"error","message":"CUDA out of memory","code":500}',
        ],
    )
    async def test_an_error_event_ends_it_after_what_was_made(
        self, server: OpenAIStandIn, engine: OpenAIEngine, event: bytes
    ) -> None:
        server.handler = stream_of(sse(delta({"content": "a"}), event))

        text, error = await fail(engine)

        assert text == "a"
        assert (error.code, error.fault, error.body) == ("upstream_error", "host", event)
        assert "CUDA out of memory" in error.message

    async def test_an_event_named_error_ends_it(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        server.handler = stream_of(b'event: error\ndata: {"message":"boom"}\n\n')

        _, error = await fail(engine)

        assert error.message.endswith("boom")

    async def test_death_is_never_a_silent_end(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            answer.begin_stream()
            await answer.piece(sse(delta({"content": "a"}), done=False))
            await read_it.wait()
            answer.reset()

        read_it = asyncio.Event()
        server.handler = handle
        text = ""

        with pytest.raises(EngineError) as caught:
            async for item in engine.run(request()):
                assert isinstance(item, Frame)
                text += item.text
                read_it.set()

        assert (text, caught.value.code, caught.value.fault) == ("a", "upstream_cut", "host")

    async def test_a_clean_end_without_done_and_reason_is_a_fault(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        server.handler = stream_of(sse(delta({"content": "a"}), done=False))

        text, error = await fail(engine)

        assert (text, error.code, error.fault) == ("a", "upstream_cut", "host")

    async def test_a_clean_end_with_a_reason_is_an_answer(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        server.handler = stream_of(sse(delta({"content": "a"}), STOP, done=False))

        frames, finish = await play(engine)

        assert (frames, finish.finish_reason) == ([Frame("a")], "stop")

    async def test_a_last_event_without_blank_line_counts(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        server.handler = stream_of(sse(delta({"content": "a"}), done=False) + b"data: [DONE]")

        frames, _ = await play(engine)

        assert frames == [Frame("a")]

    async def test_rubbish_is_a_fault(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        server.handler = stream_of(b"data: <html>\n\n")

        _, error = await fail(engine)

        assert (error.code, error.fault) == ("upstream_protocol", "host")

    async def test_silence_mid_answer_times_out(
        self, server: OpenAIStandIn, engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            answer.begin_stream()
            await answer.piece(sse(delta({"content": "a"}), done=False))
            await asyncio.Event().wait()

        server.handler = handle
        monkeypatch.setattr(openai_engine, "IDLE_TIMEOUT_S", 0.02)

        text, error = await fail(engine)

        assert (text, error.code) == ("a", "upstream_timeout")


class TestCancel:
    async def test_closing_the_iterator_cuts_the_servers_connection(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        async def handle(_: Request, answer: Answer) -> None:
            answer.begin_stream()
            await answer.piece(sse(delta({"content": "a"}), done=False))
            await asyncio.Event().wait()

        server.handler = handle
        stream = engine.run(request())
        assert await anext(stream) == Frame("a")

        await stream.aclose()  # type: ignore[attr-defined]

        async with asyncio.timeout(0.1):
            await server.gone.wait()

    async def test_cancelling_while_the_prompt_is_read_cuts_it_too(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        asked = asyncio.Event()

        async def handle(_: Request, answer: Answer) -> None:
            asked.set()
            await asyncio.Event().wait()

        server.handler = handle
        playing = asyncio.create_task(play(engine))
        await asked.wait()

        playing.cancel()

        async with asyncio.timeout(0.1):
            await server.gone.wait()


class TestModels:
    async def test_context_lengths_are_read_wherever_servers_put_them(self, server: OpenAIStandIn) -> None:
        server.models = {
            "data": [
                {"id": "a", "max_model_len": 1000},
                {"id": "b", "context_length": 2000},
                {"id": "c", "meta": {"n_ctx_train": 3000}},
                {"id": "d"},
            ]
        }
        engine = OpenAIEngine(base_url=server.base_url, context_tokens=77)
        await engine.start()
        offers = await engine.models()
        await engine.close()

        assert [(offer.name, offer.context_tokens) for offer in offers] == [
            ("a", 1000),
            ("b", 2000),
            ("c", 3000),
            ("d", 77),
        ]
        assert not offers[0].can_continue

    async def test_a_file_is_offered_by_its_stem_and_asked_for_by_its_path(self, server: OpenAIStandIn) -> None:
        server.models = {"data": [{"id": "/models/Tiny-Q4.gguf", "aliases": ["tiny"]}]}
        engine = OpenAIEngine(base_url=server.base_url)
        await engine.start()
        names = [offer.name for offer in await engine.models()]
        await play(engine, request(model="tiny"))
        await engine.close()

        assert names == ["Tiny-Q4", "tiny"]
        assert server.requests[0].json["model"] == "/models/Tiny-Q4.gguf"

    async def test_aliases_choose_and_rename(self, server: OpenAIStandIn) -> None:
        engine = OpenAIEngine(base_url=server.base_url, aliases={"house-chat": MODEL, "gone": "not-there"})
        await engine.start()
        names = [offer.name for offer in await engine.models()]
        await play(engine, request(model="house-chat"))
        await engine.close()

        assert names == ["house-chat"]
        assert server.requests[0].json["model"] == MODEL

    @pytest.mark.parametrize(
        ("model", "kinds"),
        [
            ("nomic-embed-text", ["embedding"]),
            ("BAAI/bge-m3", ["embedding"]),
            ("meta-llama/Llama-3.1-8B", ["chat", "completion"]),
            ("foobge-x", ["chat", "completion"]),
        ],
    )
    async def test_embedding_models_are_known_by_their_names(
        self, server: OpenAIStandIn, model: str, kinds: list[str]
    ) -> None:
        server.models = {"data": [{"id": model}]}
        engine = OpenAIEngine(base_url=server.base_url)
        await engine.start()
        offers = await engine.models()
        await engine.close()

        assert offers[0].kinds == kinds

    async def test_a_model_that_is_not_served_is_the_hosts_fault(self, engine: OpenAIEngine) -> None:
        _, error = await fail(engine, request(model="other"))

        assert (error.code, error.fault) == ("model_not_served", "host")

    @pytest.mark.parametrize(
        ("status", "models", "words"),
        [
            (401, {}, "check the engine's api_key"),
            (200, {"data": []}, "load one there"),
            (200, [1], "not OpenAI's list"),
        ],
    )
    async def test_start_says_what_is_wrong(self, server: OpenAIStandIn, status: int, models: Any, words: str) -> None:
        server.models_status, server.models = status, models
        engine = OpenAIEngine(base_url=server.base_url)

        with pytest.raises(EngineError, match=words):
            await engine.start()

        await engine.close()

    def test_an_unknown_kind_is_refused(self) -> None:
        with pytest.raises(EngineError, match="not image"):
            OpenAIEngine(base_url="http://127.0.0.1:1", kinds="chat+image")


class TestDiscoverLocal:
    async def test_servers_are_found_by_their_ports(self, server: OpenAIStandIn) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            found = await discover_local(ports=((free.getsockname()[1], "nobody"), (server.port, "vLLM")))

        assert found == [LocalServer(f"{server.base_url}/v1", "vLLM", [MODEL])]

    async def test_the_coordinators_own_port_is_left_out(self, server: OpenAIStandIn) -> None:
        assert await discover_local(ports=((server.port, "vLLM"),), skip_ports=[server.port]) == []
        assert server.connections == 0

    async def test_another_coordinator_is_left_out(self, server: OpenAIStandIn) -> None:
        server.models = {"data": [{"id": "demo", "owned_by": "comptoir"}]}

        assert await discover_local(ports=((server.port, "vLLM"),)) == []
