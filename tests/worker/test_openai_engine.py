"""The openai engine against a server that does all the good things real ones do."""

import asyncio
from typing import Any

import msgspec
import pytest

from comptoir.link import Frame, Usage
from comptoir.worker.engines import sse as sse_parser
from comptoir.worker.engines.base import EngineRequest
from comptoir.worker.engines.openai import OpenAIEngine
from tests.at_once import at_once
from tests.worker.openai_play import MODEL, ROLE, STOP, extra, fail, play, request
from tests.worker.openai_stand_in import Answer, OpenAIStandIn, Request, delta, sse, stream_of, usage


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

    async def test_a_usage_object_of_any_length_is_its_counts(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        server.handler = stream_of(sse(delta({"content": "a"}), STOP, usage(7, 1, notes="x" * 70_000)))

        _, finish = await play(engine)

        assert (finish.usage.prompt_tokens, finish.usage.completion_tokens) == (7, 1)
        assert msgspec.json.decode(finish.usage.details)["total_tokens"] == 8

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

    async def test_a_prefix_is_refused(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        """A server of which nothing was found out is not tried on a buyer's answer."""
        body = msgspec.json.encode({"messages": [{"role": "user", "content": "x"}]})
        asked = EngineRequest(kind="chat", model=MODEL, body=body, prefix=(Frame("a"),))

        _, error = await fail(engine, asked)

        assert (error.code, error.fault) == ("cannot_continue", "capacity")
        assert server.requests == []

    async def test_the_api_key_is_sent(self, server: OpenAIStandIn) -> None:
        engine = OpenAIEngine(base_url=server.base_url + "/v1/", api_key="sk-x")
        await engine.start()
        await play(engine)
        await engine.close()

        assert server.requests[0].headers["authorization"] == "Bearer sk-x"

    async def test_a_kept_connection_that_is_closed_as_it_is_used_costs_nothing(
        self, server: OpenAIStandIn, engine: OpenAIEngine
    ) -> None:
        """Servers close theirs after a time or a number of requests, and a request may be on its way by then."""
        await play(engine)
        answering, calls, before = server.handler, [], server.connections

        async def closing(request: Request, answer: Answer) -> None:
            calls.append(request.path)
            if len(calls) == 1:
                answer.reset()
            else:
                await answering(request, answer)

        server.handler = closing
        frames, _ = await play(engine)

        assert (frames, len(calls), server.connections) == ([Frame("hi")], 2, before + 1)

    async def test_a_connection_is_used_again(self, server: OpenAIStandIn, engine: OpenAIEngine) -> None:
        before = server.connections
        for _ in range(5):
            await play(engine)

        assert server.connections == before

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

        async with at_once():
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

        async with at_once():
            await server.gone.wait()
